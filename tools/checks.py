"""Everything about the code that a machine can judge without running it. Runs all checks, then says which failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.checkout import PYTHON, ROOT, say

SCHEMAS = "schemas/json"
TYPES = ROOT / "build" / "types"
# its script would not survive a move of the checkout, and it has no -m
LINT_IMPORTS = "import importlinter.cli; importlinter.cli.lint_imports_command()"


def check() -> int:
    """Run every check. Returns 1 when one failed, else 0."""
    checks: dict[str, Callable[[], bool]] = {
        "lint": lambda: tool("-m", "ruff", "check", "."),
        "format": lambda: tool("-m", "ruff", "format", "--check", "."),
        "types": types,
        "import contracts": lambda: tool("-P", "-c", LINT_IMPORTS, "--cache-dir", "build/import-linter"),
        "committed schemas": schemas,
    }
    failed = [name for name, passes in checks.items() if not announced(name, passes)]
    say(f"failed: {', '.join(failed)}" if failed else "every check passed")
    return 1 if failed else 0


def announced(name: str, passes: Callable[[], bool]) -> bool:
    say(f"checking {name}")
    return passes()


def tool(*arguments: str) -> bool:
    """Run a Python tool of `.venv` over the checkout, its words going straight to the terminal."""
    return subprocess.run([PYTHON, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0


def types() -> bool:
    """mypy over every room, through links that give the rooms their import names; then over the tools behind run.py."""
    link_rooms()
    done = subprocess.run(
        [PYTHON, "-m", "mypy", "-p", "postier"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # people open console/main.py, not the link
    sys.stdout.write((done.stdout + done.stderr).replace("build/types/postier/", ""))
    sys.stdout.flush()
    return tool("-m", "mypy", "tools") and done.returncode == 0


def rooms() -> dict[str, Path]:
    """The rooms by their import name, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {name: ROOT / folder for name, folder in project["tool"]["setuptools"]["package-dir"].items()}


def link_rooms() -> None:
    """Make build/types/postier/<room>, one link a room. Safe to call again."""
    links = TYPES / "postier"
    links.mkdir(parents=True, exist_ok=True)
    wanted = {name.removeprefix("postier."): folder for name, folder in rooms().items()}
    for link in links.iterdir():
        if link.name not in wanted or not link.exists():
            link.unlink()
    for name, folder in wanted.items():
        if not (links / name).is_symlink():
            (links / name).symlink_to(os.path.relpath(folder, links), target_is_directory=True)


def schemas() -> bool:
    """Whether each committed JSON Schema is what its kind says today."""
    answer = command_answer("kinds", "--json")
    listed = answer.get("kinds") if isinstance(answer, dict) else answer
    if not listed:
        say("  `postier kinds --json` lists no kind")
        return False
    kinds = [kind["kind"] if isinstance(kind, dict) else str(kind) for kind in listed]
    stale = [kind for kind in kinds if not committed(kind)]
    for kind in stale:
        say(f"  {SCHEMAS}/{kind}.json is not what the kind says: see `python3 run.py kinds --schema {kind}`")
    return not stale


def committed(kind: str) -> bool:
    path = ROOT / SCHEMAS / f"{kind}.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == command_answer("kinds", "--schema", kind)


def command_answer(*arguments: str) -> Any:
    """What a postier command answers in JSON; None when it does not."""
    command = [str(PYTHON), "-P", "-m", "postier.console", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None
