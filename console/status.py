"""`postier status`: what became of a delivery or an event."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, moment, safe, say, say_json

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.ledger.queries import Status


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(status)


def status(
    id: Annotated[str, typer.Argument(help="A delivery's id, or an event's id or idempotency key.")],
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose event it is; all tenants without.")] = None,
    json_output: AsJson = False,
) -> None:
    """Show a delivery, or all deliveries of an event, each with its timeline, the latest first."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        found = _find(opened, id, tenant)
        if not found:
            complain(f"postier: no delivery and no event is known as {safe(id)}")
            raise typer.Exit(NEGATIVE)
        show(opened, found, json_output=json_output)


def _find(opened: Ledger, wanted: str, tenant: str | None) -> list[Status]:
    one = opened.queries.status(wanted)
    if one is not None and tenant in (None, one.tenant):
        return [one]
    tenants = [tenant] if tenant is not None else sorted(opened.registry().tenants)
    ids = [item for name in tenants for item in opened.queries.deliveries_of(name, wanted)]
    return [found for found in map(opened.queries.status, ids) if found is not None]


def show(opened: Ledger, found: Iterable[Status], *, json_output: bool) -> None:
    """Print deliveries with their timelines; JSON has one object a line."""
    from postier.console.words import advice, state_in_words

    accounts, now = opened.queries.accounts(), time.time()
    for number, one in enumerate(found):
        words, hint = state_in_words(one, accounts, now), advice(one, accounts)
        if json_output:
            say_json({**one.as_dict(), "in_words": words, "advice": hint})
            continue
        if number:
            say()
        _print(one, words, hint)


def _print(one: Status, words: str, hint: str) -> None:
    from postier.console.words import reply_in_words

    reply = reply_in_words({**one.facts, "words": one.words})
    lines = {
        "delivery": one.id,
        "state": f"{one.state}: {words}" if not words.startswith(one.state) else words,
        "event": f"{one.event} ({one.kind}, tenant {one.tenant})",
        "to": f"{one.recipient} by account {one.account}",
        "attempts": str(one.attempt),
        "accepted": moment(one.accepted_at),
        "next attempt": moment(one.due) if one.state == "waiting" and (one.due or 0) > time.time() else "",
        "ended": moment(one.ended_at),
        "last reply": reply,
        "you can": hint,
    }
    for name, value in lines.items():
        if value:
            say(f"{name:<13}{safe(value)}")
    for line in sorted(one.history, key=lambda line: float(line.get("at", 0)), reverse=True):
        say(f"  {moment(line.get('at'))}  {_step(line)}")


def _step(line: dict[str, object]) -> str:
    from postier.console.words import cause_in_words, reply_in_words

    parts = [safe(line.get("what", ""))]
    if line.get("attempt"):
        parts.append(f"attempt {safe(line['attempt'])}")
    if line.get("by"):
        parts.append(f"by {safe(line['by'])}")
    text = " ".join(parts)
    cause, reply = str(line.get("cause") or line.get("reason") or ""), reply_in_words(line)
    for more in (cause_in_words(cause) if cause else "", reply):
        text += f": {more}" if more else ""
    return text
