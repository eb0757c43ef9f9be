"""`postier status`: what became of a delivery or an event."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, moment, safe, say, say_json

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.ledger.queries import Status


_HAS_PAGE = ("failed", "unknown", "expired", "suppressed")
_LINKS = {
    "replay": "in replay", "replaced_by": "replaced by", "corrects": "corrects", "via": "overflowed from",
    "provider_id": "the provider's id is",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(status)


def status(
    id: Annotated[str, typer.Argument(help="A delivery, Message-ID, event, idempotency key or provider's id.")],
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
    tenants = [tenant] if tenant is not None else opened.names().tenants
    found = opened.queries.find(wanted, tenants)
    if not found and tenant is None:  # a tenant that was removed since
        one = opened.queries.status(wanted)
        found = [one] if one is not None else []
    return found


def show(opened: Ledger, found: Iterable[Status], *, json_output: bool) -> None:
    """Print deliveries with their timelines; JSON has one object a line."""
    from postier.console.timeline import timeline
    from postier.console.words import advice, runbook_page, state_in_words

    accounts, now = opened.queries.accounts(), time.time()
    drivers = opened.names().drivers
    for number, one in enumerate(found):
        words, hint = state_in_words(one, accounts, now), advice(one, accounts)
        page = runbook_page(one.cause, one.state) if one.state in _HAS_PAGE else ""
        steps = timeline(one, drivers)
        if json_output:
            more = {"timeline": steps, "in_words": words, "advice": hint, "runbook": page}
            say_json({**one.as_dict(), **{name: value for name, value in more.items() if value or name != "runbook"}})
            continue
        if number:
            say()
        _print(one, words, hint, page, steps)


def _print(one: Status, words: str, hint: str, page: str, steps: list[dict[str, Any]]) -> None:
    from postier.console.timeline import step_in_words
    from postier.console.words import reply_in_words

    reply = reply_in_words({**one.facts, "words": one.words})
    links = [f"{word} {one.facts[name]}" for name, word in _LINKS.items() if one.facts.get(name)]
    lines = {
        "delivery": one.id,
        "state": f"{one.state}: {words}" if not words.startswith(one.state) else words,
        "event": f"{one.event} ({one.kind}, tenant {one.tenant})",
        "to": f"{one.recipient} by account {one.account}",
        "message": f"{one.facts.get('message_id', '')}",
        "attempts": str(one.attempt),
        "accepted": moment(one.accepted_at),
        "next attempt": moment(one.due) if one.state == "waiting" and (one.due or 0) > time.time() else "",
        "of use until": moment(one.facts.get("deadline")) if one.state in ("waiting", "leased", "sending") else "",
        "ended": moment(one.ended_at),
        "last reply": reply,
        "linked": "; ".join(links),
        "you can": hint,
        "runbook": f"postier runbook {page}" if page else "",
    }
    for name, value in lines.items():
        if value:
            say(f"{name:<13}{safe(value)}")
    for step in steps:
        say(f"  {moment(step.get('at'))}  {step_in_words(step)}")
