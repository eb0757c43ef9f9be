"""Who sets postier up finds every variable in `docs/settings.md`, as it is read: name, default, range, reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from postier.settings.config import OTHERS, Settings

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "settings", "drivers", "ledger", "client", "workers", "console")
READERS = {"P": "client", "W": "workers", "C": "console"}
BEHIND = {"sealer": "seal_keys", "registry": "accounts_file", "egress": "egress_allow"}
UNSET: tuple[Any, ...] = (None, "")
ROW = re.compile(r"^\| `POSTIER_([A-Z_]+)` \| (.+?) \| (.+?) \| ([PWC ]+) \| \S.* \|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8")
ROWS = {name.lower(): row for name, *row in ROW.findall(PAGE)}


def default_of(name: str) -> str:
    """As the page writes it."""
    value = Settings.model_fields[name].default
    value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    if value in UNSET:
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def values_of(name: str) -> str | None:
    """As the page writes them; None for what has to be told in words."""
    field = Settings.model_fields[name]
    if words := [word for word in get_args(field.annotation) if isinstance(word, str)]:
        return ", ".join(f"`{word}`" for word in words)
    bounds = {kind: getattr(one, kind) for one in field.metadata for kind in ("ge", "gt", "le") if hasattr(one, kind)}
    if "gt" in bounds:
        return f"above {bounds['gt']}, to {bounds['le']}"
    return f"{bounds['ge']} to {bounds['le']}" if bounds else None


def readers_of(name: str) -> str:
    """The rooms in whose sources the setting is used."""
    found = []
    for letter, room in READERS.items():
        text = "".join(path.read_text("utf-8") for path in (ROOT / room).glob("*.py"))
        used = {BEHIND.get(word, word) for word in re.findall(r"\bsettings\.([a-z_]+)", text)}
        if name in used:
            found.append(letter)
    return " ".join(found)


def test_every_setting_has_its_row_and_no_other() -> None:
    assert set(ROWS) == set(Settings.model_fields)
    assert set(re.findall(r"^\| `(POSTIER_[A-Z_]+)` \|", PAGE, re.MULTILINE)) - set(OTHERS) == {
        f"POSTIER_{name.upper()}" for name in Settings.model_fields
    }
    assert all(f"| `{name}` |" in PAGE for name in OTHERS)


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_a_row_says_what_the_setting_is(name: str) -> None:
    default, values, readers = ROWS[name]
    assert (default, readers.strip()) == (default_of(name), readers_of(name))
    assert values_of(name) in (None, values)


def test_every_variable_that_a_text_names_is_on_the_page() -> None:
    texts = [path for where in ("*.md", "docs/*.md", "deploy/*.*", "tools/*.py") for path in ROOT.glob(where)]
    texts += [path for room in ROOMS for kind in ("*.py", "*.md") for path in (ROOT / room).rglob(kind)]
    named = {name for path in texts for name in re.findall(r"POSTIER_[A-Z]+(?:_[A-Z]+)*", path.read_text("utf-8"))}
    on_page = {f"POSTIER_{name.upper()}" for name in Settings.model_fields} | set(OTHERS)
    assert named - on_page == {"POSTIER_THREAD"}  # the changelog's example of a misspelt one
