"""What the terminal gets: harmless text, JSON, tables, times. Answers go to standard output, the rest to stderr."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

OK, NEGATIVE, USAGE, REFUSED, UNAVAILABLE = 0, 1, 2, 3, 4

EXIT_CODES = (
    "Exit codes: 0 done; 1 failed or a negative answer; 2 wrong usage or configuration; 3 some events were refused; "
    "4 the ledger (Redis) is unavailable."
)

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")


def safe(value: object) -> str:
    """Text on one line that cannot move the cursor, change colours or read backwards (CWE-150).

    Everything unprintable is shown as its escape; spaces of all kinds stay spaces.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    if character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else repr(character)[1:-1]


def as_json(value: Any) -> str:
    """One line of JSON for machines that a terminal can show too: unprintable characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def say(line: str = "") -> None:
    """One line of the answer. Whatever came from outside must be `safe` already."""
    print(line)


def say_json(value: Any) -> None:
    """One JSON answer on one line."""
    print(as_json(value))


def complain(line: str) -> None:
    """One line that is not the answer."""
    print(line, file=sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns: drawn at a terminal, aligned plain text elsewhere. Cells are made safe here."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    widths = [max(len(row[at]) for row in [list(columns), *cells]) for at in range(len(columns))]
    for row in [list(columns), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        # An id is there to be copied: it is never cut.
        drawn.add_column(name, no_wrap=name in ("id", "delivery"), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(drawn)


@contextmanager
def bar(verb: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Progress for a person at a terminal who waits for much; answers what is to hear how many are handled.

    `total` is None where nobody knows it.
    """
    if not sys.stderr.isatty() or (total is not None and total < 1000):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(verb, total=total)
        yield lambda handled: shown.update(task, completed=handled)


def moment(seconds: float | None) -> str:
    """A point in time for people, in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def parse_moment(text: str, now: float) -> float:
    """Seconds since 1970 for an ISO 8601 time (without zone: UTC) or for `2h`, meaning two hours ago.

    Before 1970 nothing is kept: what lies there counts as its first second. Raises ValueError with a reason for people.
    """
    found = _SPAN.fullmatch(text.strip())
    if found:
        return max(0.0, now - float(found[1]) * _UNITS[found[2]])
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("give a time like 2026-01-31T12:00:00Z, or a time ago like 30s, 15m, 2h or 7d") from None
    return max(0.0, (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp())
