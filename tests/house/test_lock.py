"""The hashed locks: complete, the same everywhere, and silent about where packages come from."""

import re
import tomllib
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
    "image.lock": PROJECT["dependencies"],
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
