"""The hashed locks: complete, the same everywhere, and silent about where packages come from."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, BUILD = PYPROJECT["project"], PYPROJECT["build-system"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = {
    "checkout.lock": [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)],
    "image.lock": [*PROJECT["dependencies"], *EXTRAS["metrics"]],
    "build.lock": BUILD["requires"],
}


def entries(name: str) -> list[str]:
    """One string for each locked package: its pin, its marker, its hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def versions(name: str) -> dict[str, str]:
    pins = (re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry) for entry in entries(name))
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_one_version_and_its_hashes(name: str) -> None:
    for entry in entries(name):
        assert re.match(r"[A-Za-z0-9._-]+==\S+( ; [^\\]+?)? +--hash=sha256:[0-9a-f]{64}", entry), entry[:120]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host(name: str) -> None:
    assert not re.search(r"://|--index|--find-links|@ ", (ROOT / "requirements" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_answers_every_requirement_of_pyproject(name: str) -> None:
    locked = versions(name)
    for line in LOCKS[name]:
        requirement = Requirement(line)
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements/{name}: run python3 run.py lock"
        assert requirement.specifier.contains(version), f"{line} is locked at {version}: run python3 run.py lock"


@pytest.mark.parametrize("name", ["image.lock", "build.lock"])
def test_the_image_runs_the_versions_that_were_tested(name: str) -> None:
    tested = versions("checkout.lock")

    assert {package: tested.get(package) for package in versions(name)} == versions(name)


def test_the_image_carries_no_test_tools() -> None:
    assert not {"pytest", "mypy", "ruff", "fakeredis", "playwright", "pip"} & set(versions("image.lock"))


def test_the_attack_suite_counts_the_packages_that_must_be_trusted_as_they_are() -> None:
    """Row T31: what is declared, how much of it nothing else would bring, and what an image on Linux installs."""
    declared = {canonicalize_name(Requirement(line).name): Requirement(line).extras for line in PROJECT["dependencies"]}
    chosen = {name for name in declared if name not in brought_by({**declared, name: None})}
    here = {"sys_platform": "linux", "python_full_version": "3.13.0"}
    installed = [entry for entry in entries("image.lock") if applies(entry.split(" --hash")[0], here)]
    table = (ROOT / "tests" / "attacks" / "README.md").read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if line.startswith("| T31 "))

    assert f"{len(declared)} declared" in row
    assert f"{len(chosen)} that no other brings" in row
    assert f"{len(installed)} installed" in row


def applies(line: str, environment: dict[str, str]) -> bool:
    marker = Requirement(line).marker
    return marker is None or marker.evaluate(environment)


def brought_by(packages: dict[str, set[str] | None]) -> set[str]:
    """What these packages, each with its extras, need; one that stands at None is left out."""
    found: set[str] = set()
    open_ = [(name, extras) for name, extras in packages.items() if extras is not None]
    while open_:
        name, extras = open_.pop()
        for line in requires(name) or ():
            need = Requirement(line)
            key = canonicalize_name(need.name)
            wanted = need.marker is None or any(need.marker.evaluate({"extra": one}) for one in ("", *extras))
            if wanted and key not in found:
                found.add(key)
                if packages.get(key, ()) is not None:
                    open_.append((key, need.extras))
    return found
