"""The import contracts hold, and each of them would notice a trespass."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
ROOMS = [package.removeprefix("postier.") for package in PROJECT["setuptools"]["package-dir"]]
CONTRACTS = [contract["name"] for contract in PROJECT["importlinter"]["contracts"]]

# DESIGN.md section 2, the column "may import"
MAY_IMPORT = {
    "schemas": set(),
    "settings": {"schemas"},
    "drivers": {"schemas"},
    "ledger": {"schemas", "settings"},
    "client": {"schemas", "settings", "ledger"},
    "workers": {"schemas", "settings", "drivers", "ledger"},
    "console": {"schemas", "settings", "drivers", "ledger", "client", "workers"},
}
OWNERS = {
    "redis": "ledger",
    "dramatiq": "workers",
    "smtplib": "drivers",
    "httpx2": "drivers",
    "msal": "drivers",
    "exchangelib": "drivers",
    "win32com": "drivers",
    "typer": "console",
    "rich": "console",
    "prometheus_client": "console",
}


def lint(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of pyproject.toml over the rooms that `folder` makes importable."""
    command = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from importlinter.cli import lint_imports_command as c; c()"
    )
    options = ["--config", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    return subprocess.run(
        [sys.executable, "-P", "-c", command, str(folder), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def imports_of(room: str, modules: set[str]) -> str:
    return "".join(f"import {module}\n" for module in sorted(modules))


def house(folder: Path, imports: dict[str, set[str]]) -> Path:
    """A house of empty rooms, each with one file that holds the imports given."""
    for room in ROOMS:
        (folder / "postier" / room).mkdir(parents=True)
        (folder / "postier" / room / "__init__.py").touch()
        (folder / "postier" / room / "guest.py").write_text(imports_of(room, imports.get(room, set())))
    return folder


def broken(report: str) -> set[str]:
    return {name for name in CONTRACTS if re.search(rf"^{re.escape(name)} BROKEN$", report, re.MULTILINE)}


def test_no_room_imports_what_it_must_not(tmp_path: Path) -> None:
    report = lint(ROOT, tmp_path)

    assert report.returncode == 0, report.stdout + report.stderr


def test_a_house_that_uses_every_permission_keeps_every_contract(tmp_path: Path) -> None:
    permitted = {
        room: {f"postier.{other}" for other in others} | {name for name, owner in OWNERS.items() if owner == room}
        for room, others in MAY_IMPORT.items()
    }

    report = lint(house(tmp_path / "house", permitted), tmp_path / "cache")

    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_that_imports_a_forbidden_room_is_named(room: str, tmp_path: Path) -> None:
    forbidden = set(ROOMS) - MAY_IMPORT[room] - {room}
    for number, other in enumerate(sorted(forbidden)):
        folder = house(tmp_path / f"house{number}", {room: {f"postier.{other}"}})

        report = lint(folder, tmp_path / f"cache{number}")

        assert any(name.startswith(f"{room} imports") for name in broken(report.stdout)), f"{room} may import {other}"


def test_a_library_outside_its_room_is_named_by_its_contract(tmp_path: Path) -> None:
    everywhere = {room: {name for name, owner in OWNERS.items() if owner != room} for room in ROOMS}

    report = lint(house(tmp_path / "house", everywhere), tmp_path / "cache")

    assert broken(report.stdout) == {name for name in CONTRACTS if name.startswith("only ")}
    for library, owner in OWNERS.items():
        for room in set(ROOMS) - {owner}:
            assert re.search(rf"postier\.{room}\.guest -> {library}\b", report.stdout), f"{room} may import {library}"
