"""`postier top`: accounts, throughput and failures, live."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import moment, safe, say, say_json, span, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postier.console.ledger_access import Ledger
    from postier.ledger.watch import Picture

_OTHER_LINES = 9  # of the live view: what stands above and below the rows, where lines wrap
_COLUMNS = ("account", "state", "rate", "quota left", "urgent", "bulk", "busy", "oldest", "last error")
_LAST = len(_COLUMNS) - 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    json_output: AsJson = False,
) -> None:
    """Watch accounts, throughput and failures. Keys: up and down (or j, k) choose an account, p pauses it, r resumes
    it, q ends. With --json or where there is no terminal: one look, or one a line until it is stopped."""
    from postier.console.ledger_access import ledger
    from postier.ledger.watch import look

    with ledger() as opened:
        if once or not (sys.stdout.isatty() and sys.stdin.isatty()) or json_output:
            while True:
                picture = look(opened.store)
                if json_output:
                    say_json(picture.as_dict())
                else:
                    _print(picture)
                sys.stdout.flush()
                if once or not json_output:
                    return
                time.sleep(every)
        _live(opened, every)


def rows_of(picture: Picture) -> list[tuple[str, ...]]:
    """One row an account, those with trouble or waiting mail first."""

    def weight(item: tuple[str, dict[str, Any]]) -> tuple[bool, int, str]:
        name, facts = item
        return facts.get("state") == "ready", -(facts["waiting_urgent"] + facts["waiting_bulk"]), name

    return [_row(name, facts) for name, facts in sorted(picture.accounts.items(), key=weight)]


def _row(name: str, facts: dict[str, Any]) -> tuple[str, ...]:
    allowed = facts.get("allowed_per_second")
    rate = f"{facts.get('per_second', 0):g}" + (f" of {allowed:g}/s" if allowed else "/s")
    quota = ", ".join(
        f"{facts[f'{length}_left']} this {length}" for length in ("hour", "day") if f"{length}_left" in facts
    )
    return (
        name, _state(facts), rate, quota, str(facts["waiting_urgent"]), str(facts["waiting_bulk"]),
        str(facts["conversations"]), span(facts["oldest"]) if "oldest" in facts else "",
        safe(_said_once(str(facts.get("last_error", ""))))[:60],
    )  # fmt: skip


def _said_once(error: str) -> str:
    """Words of our own begin with their cause already."""
    cause, _, words = error.partition(" ")
    return words if words.startswith(f"{cause}:") else error


def _state(facts: dict[str, Any]) -> str:
    state = str(facts.get("state", "unseen")).replace("_", " ")
    if state == "parked" and facts.get("until"):
        return f"parked until {moment(facts['until'])[11:19]}"
    return f"paused by {facts['by']}" if state == "paused" and facts.get("by") else state


def _summary(picture: Picture) -> str:
    counts = picture.counts
    threads = sum(worker["threads"] for worker in picture.workers)
    return (
        f"{moment(picture.at)}   {counts['waiting']} waiting, {counts['in_hand']} in hand, "
        f"{picture.sent_per_second:g}/s sent; {counts['failed']} failed, {counts['unknown']} unknown, "
        f"{counts['expired']} expired   {len(picture.workers)} workers with {threads} threads"
    )


def _failures(picture: Picture) -> str:
    worst = sorted(picture.failures.items(), key=lambda item: -item[1])[:8]
    return "in the last hour: " + (", ".join(f"{safe(cause)} {count}" for cause, count in worst) or "no failure")


def _print(picture: Picture) -> None:
    say(_summary(picture))
    table(_COLUMNS, rows_of(picture))
    say(_failures(picture))


def _live(opened: Ledger, every: float) -> None:
    from rich.live import Live

    from postier.ledger.watch import look
    from postier.schemas.errors import LedgerUnavailable

    chosen, note = 0, ""
    names: list[str] = []  # an account stays chosen wherever its row goes
    with _keys(), Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                picture = look(opened.store)
                rows = rows_of(picture)
                name = names[chosen] if names else ""
                names = [row[0] for row in rows]
                chosen = names.index(name) if name in names else max(0, min(chosen, len(rows) - 1))
                live.update(_drawn(picture, rows, chosen, note, live.console.height), refresh=True)
            except LedgerUnavailable as error:  # a restart must not end the watch
                note = safe(error)
            for key in _pressed(every):
                if key in ("q", "\x03"):
                    return
                if key in ("j", "B"):
                    chosen = min(chosen + 1, max(0, len(names) - 1))
                elif key in ("k", "A"):
                    chosen = max(0, chosen - 1)
                elif key in ("p", "r") and names:
                    name = names[chosen]
                    try:
                        manage = opened.manage()
                        (manage.pause if key == "p" else manage.resume)(name)
                        note = f"{safe(name)} {'paused' if key == 'p' else 'resumed'}"
                    except LedgerUnavailable as error:
                        note = safe(error)


def _drawn(picture: Picture, rows: list[tuple[str, ...]], chosen: int, note: str, height: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    # What is short is never cut, what nobody has is left out; the last column gets the room that is left.
    shown = [at for at in range(len(_COLUMNS)) if at == _LAST or any(row[at] for row in rows)]
    for at in shown:
        least = None if at == _LAST else max(len(_COLUMNS[at]), *(len(row[at]) for row in rows))
        drawn.add_column(_COLUMNS[at], no_wrap=True, min_width=least, ratio=None if least else 1, overflow="ellipsis")
    room = max(3, height - _OTHER_LINES)
    first = max(0, min(chosen - room // 2, len(rows) - room))  # the chosen one is in sight, however many there are
    for number, row in list(enumerate(rows))[first : first + room]:
        style = "reverse" if number == chosen else "" if row[1] == "ready" else "bold"
        drawn.add_row(*(Text(safe(row[at])) for at in shown), style=style)
    hidden = len(rows) - room
    if hidden > 0:
        drawn.add_row(Text(f"… {hidden} more", style="dim"))
    keys = "p pause   r resume   ↑↓ choose   q end" + (f"   {note}" if note else "")
    return Group(Text(_summary(picture)), Text(""), drawn, Text(""), Text(_failures(picture)), Text(keys, style="dim"))


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Single keys without echo, put back at the end."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> str:
    """The keys pressed within `seconds`, of an arrow its letter: who is quicker than a picture means each of them."""
    import os

    if not select.select([sys.stdin], [], [], seconds)[0]:
        return ""
    return os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace").replace("\x1b[", "").replace("\x1bO", "")
