"""Every command that a document, a page of the runbook, a help text or an advice names is there, with its options.

What stands in a block of commands is also read as the command line reads it: somebody will paste it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from postier.console.main import app

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "settings", "drivers", "ledger", "client", "workers", "console")
TEXTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
    *(path for room in ROOMS for kind in ("*.py", "*.md") for path in (ROOT / room).rglob(kind)),
]
COMMAND = typer.main.get_command(app)
NAMED = re.compile(r"`postier ([a-z][^`\n]*)`|^postier ([a-z][^#\n]*)", re.MULTILINE)


def named(text: str) -> Iterator[tuple[str, bool]]:
    """The command lines in a text, without `postier`, and whether each is a whole one, to be pasted."""
    for quoted, whole in NAMED.findall(text):
        yield (quoted or whole).strip(), bool(whole)


def wrong_in(line: str, *, whole: bool = False) -> str:
    """What the command line does not know of it; `a|b` names two commands, and what stands for a value is left out."""
    command: Any = COMMAND
    words = line.split()
    while words and hasattr(command, "commands") and not words[0].startswith(("-", "…")) and not words[0].isupper():
        names = [name for name in words.pop(0).split("|") if name != "…"]
        if missing := [name for name in names if name not in command.commands]:
            return f"no command {missing[0]}"
        command = command.commands[names[0]]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    given = [option for word in words for option in re.findall(r"(?:^|[\[|])(--[a-z-]+)", word)]
    unknown = [option for option in given if option not in known]
    if unknown:
        return f"no option {unknown[0]}"
    return refused(command, words) if whole else ""


def refused(command: Any, words: list[str]) -> str:
    """What the command line answers to a whole one: an option without its value, an argument that is missing."""
    try:
        command.make_context(command.name, shlex.split(" ".join(words)))
    except TyperException as error:
        return error.format_message()
    return ""


def test_what_is_named_exists() -> None:
    found = {(str(path.relative_to(ROOT)), *one) for path in TEXTS for one in named(path.read_text("utf-8"))}
    assert len(found) > 60
    assert {(where, line): wrong for where, line, whole in found if (wrong := wrong_in(line, whole=whole))} == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("doctor", ""),
        ("accounts add|edit NAME --untested", ""),
        ("inbox refused", "no command refused"),
        ("failed replay --all --pace 5/s --fast", "no option --fast"),
        ("accounts add|melt", "no command melt"),
    ],
)
def test_what_does_not_exist_is_found(line: str, wrong: str) -> None:
    assert wrong_in(line) == wrong


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("failed replay DELIVERY --edit -", ""),
        ("failed replay DELIVERY --edit", "Option '--edit' requires an argument."),
        ("failed discard --group GROUP", "Missing option '--reason'."),
        ("status", "Missing argument 'id'."),
    ],
)
def test_what_would_be_refused_when_pasted_is_found(line: str, wrong: str) -> None:
    assert wrong_in(line, whole=True) == wrong
