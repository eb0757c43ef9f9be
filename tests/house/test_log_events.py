"""Who is on call finds every line of the log in `docs/log.md`, with the levels it comes at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "settings", "drivers", "ledger", "client", "workers", "console")
LEVELS = {level: level for level in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}
# Chosen at run time, by what Redis promises.
CHOSEN = {"ledger.checked": {"info", "warning"}}


def told(source: str) -> Iterator[tuple[str, str]]:
    """Event and level of every `log().level("event", ...)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, LEVELS[node.func.attr]


def test_every_event_of_the_log_is_explained_and_nothing_else() -> None:
    found = {name: set(levels) for name, levels in CHOSEN.items()}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for name, level in told(path.read_text("utf-8")):
                found.setdefault(name, set()).add(level)
    table = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \| \S", (ROOT / "docs" / "log.md").read_text("utf-8"), re.M)
    assert {name: set(levels.split(", ")) for name, levels in table} == found
    assert [name for name, _ in table] == sorted(found), "in the order of the alphabet"


def test_what_is_told_in_any_way_is_found() -> None:
    assert list(told('log().exception("a.b", c=1); tell.warning("d.e"); log().info(x)')) == [
        ("a.b", "error"), ("d.e", "warning"),
    ]  # fmt: skip
