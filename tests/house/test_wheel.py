"""What a wheel of postier holds: every file of the rooms, and nothing else."""

import os
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest

from tools.release import build_wheel

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
ROOMS: dict[str, str] = SETUPTOOLS["package-dir"]
NOT_SOURCE = ("__pycache__", "*.pyc", ".*", "*~", "*.egg-info")


def files_of_the_rooms() -> set[str]:
    """Their paths as a wheel names them: postier/<room>/..."""
    found = set()
    for package, folder in ROOMS.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inside.parts):
                found.add(f"{package.replace('.', '/')}/{inside.as_posix()}")
    return found


def packages_of_the_rooms() -> set[str]:
    """The import name of every folder that has Python in it."""
    return {path.rpartition("/")[0].replace("/", ".") for path in files_of_the_rooms() if path.endswith(".py")}


def built(tree: Path) -> Path:
    """A wheel built from a copy: a build in place may pick up what an older one left in build/."""
    for folder in [*ROOMS.values(), "tests", "tools"]:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tree)
    shutil.copy(ROOT / "LICENSE", tree)
    return build_wheel(tree, tree, epoch=1767225600)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return built(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheel(first: Path) -> set[str]:
    """The names in it."""
    with zipfile.ZipFile(first) as archive:
        return set(archive.namelist())


def test_the_same_source_gives_the_same_wheel_to_the_octet(first: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)  # another machine: another folder, other times and modes
    try:
        again = built(tmp_path)
    finally:
        os.umask(before)
    assert again.read_bytes() == first.read_bytes()


def test_every_folder_with_python_in_a_room_is_listed_in_pyproject() -> None:
    unlisted = packages_of_the_rooms() - set(SETUPTOOLS["packages"])

    assert not unlisted, f"add to [tool.setuptools] packages in pyproject.toml: {', '.join(sorted(unlisted))}"


def test_every_package_listed_in_pyproject_has_its_folder() -> None:
    gone = set(SETUPTOOLS["packages"]) - packages_of_the_rooms()

    assert not gone, f"take out of [tool.setuptools] packages in pyproject.toml: {', '.join(sorted(gone))}"


def test_the_wheel_holds_every_file_of_the_rooms(wheel: set[str]) -> None:
    lost = files_of_the_rooms() - wheel

    assert not lost, f"not in the wheel: add to packages or package-data in pyproject.toml: {', '.join(sorted(lost))}"


def test_the_wheel_holds_nothing_but_the_rooms(wheel: set[str]) -> None:
    stowaways = {name for name in wheel - files_of_the_rooms() if ".dist-info/" not in name}

    assert not stowaways


def test_every_room_says_that_it_is_typed(wheel: set[str]) -> None:
    assert {f"{package.replace('.', '/')}/py.typed" for package in ROOMS} <= wheel


def test_postier_itself_is_a_namespace_that_others_may_extend(wheel: set[str]) -> None:
    assert "postier/__init__.py" not in wheel
    assert not (ROOT / "postier").exists()


def test_the_wheel_brings_the_licence_and_the_command(wheel: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)
