"""The sample events as they go: a live table at a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from postier.console.demo_stories import Story
from postier.console.output import safe, say
from postier.console.words import cause_in_words, reply_in_words, state_in_words
from postier.ledger.queries import ENDS

if TYPE_CHECKING:
    from rich.table import Table

Accounts = Mapping[str, Mapping[str, Any]]
COLUMNS = ("kind", "account", "state", "attempts", "seconds", "reason")


class View(Protocol):
    """Shows the stories as they stand."""

    def show(self, stories: Sequence[Story], accounts: Accounts) -> None:
        """Show what is new."""

    def close(self) -> None:
        """Leave the last state standing."""


def row(story: Story, accounts: Accounts) -> tuple[str, ...]:
    """One story's cells, safe for a terminal."""
    statuses = story.statuses
    told = story.told(accounts)
    counts = Counter(status.state for status in statuses)
    state = ", ".join(f"{count} {name}" if len(statuses) > 1 else name for name, count in counts.items())
    if told and story.end == "waits":
        state = "waiting (parked)"
    ended = [status.ended_at for status in statuses if status.ended_at]
    began = min((status.accepted_at for status in statuses), default=None)
    over = ended and len(ended) == len(statuses)
    seconds = "" if began is None else f"{(max(ended) if over else time.time()) - began:.1f}"
    attempts = str(sum(status.attempt for status in statuses))
    return (story.event.kind, story.account, state, attempts, seconds, safe(_reason(story, accounts)))


def _reason(story: Story, accounts: Accounts) -> str:
    for status in story.statuses:
        if status.state not in ("sent", "leased", "sending"):
            words = state_in_words(status, accounts, time.time())
            reply = reply_in_words({**status.facts, "words": status.words})
            return f"{words} ({reply})" if reply and status.state in ENDS else words
    for status in story.statuses:
        for line in status.history:
            if line.get("what") in ("retried", "deferred"):
                return f"at first {cause_in_words(str(line.get('cause', '')))} ({reply_in_words(line)})"
    return story.note


class Lines:
    """A line for each change, for logs and pipes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown: dict[int, tuple[str, str, bool | None]] = {}

    def show(self, stories: Sequence[Story], accounts: Accounts) -> None:
        """Print the stories whose state changed."""
        for number, story in enumerate(stories):
            kind, account, state, attempts, _, reason = row(story, accounts)
            told = story.told(accounts)
            if not state or self._shown.get(number) == (state, attempts, told):
                continue
            self._shown[number] = (state, attempts, told)
            mark = {True: "as told", False: "NOT AS TOLD", None: ""}[told]
            age = time.monotonic() - self._began
            say(f"{age:5.1f} s  {kind:<19}{account:<12}{state:<26}{mark:<12}{reason}".rstrip())

    def close(self) -> None:
        """Nothing is open."""


class Live:
    """A table that changes in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._live = RichLive(console=Console(highlight=False), auto_refresh=False)
        self._live.start()

    def show(self, stories: Sequence[Story], accounts: Accounts) -> None:
        """Draw all stories anew."""
        self._live.update(_drawn(stories, accounts), refresh=True)

    def close(self) -> None:
        """Leave the table on the screen."""
        self._live.stop()


def _drawn(stories: Sequence[Story], accounts: Accounts) -> Table:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        drawn.add_column(name, justify="right" if name in ("attempts", "seconds") else "left")
    styles = {True: "green", False: "bold red", None: "yellow"}
    for story in stories:
        cells = row(story, accounts)
        style = styles[story.told(accounts)]
        drawn.add_row(*(Text(cell, style=style if at == 2 else "") for at, cell in enumerate(cells)))
    return drawn
