"""`postier failed`: deliveries that wait for a person, and what a person can do with them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from postier.console.arguments import (
    EPILOG,
    AccountName,
    AsJson,
    KindName,
    Since,
    StateNames,
    TenantName,
    Until,
    find,
)
from postier.console.output import NEGATIVE, complain, safe, say, say_json

if TYPE_CHECKING:
    from postier.ledger.manage import Answer

app = typer.Typer(
    help="Deliveries that wait for a person: failed, unknown (may have left), expired.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FAILED = ("failed", "unknown", "expired")
_ALL = 100_000

Ids = Annotated[list[str] | None, typer.Argument(help="Delivery ids.")]
All = Annotated[bool, typer.Option("--all", help="Every one that the filters leave.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_WORDS = {
    "not_possible": "is not failed, unknown or expired any more",
    "over": "was of use for a limited time, which has passed: publish a new event",
    "unknown_id": "is not known",
}


@app.command("list", epilog=EPILOG)
def list_(
    state: StateNames = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 100,
    json_output: AsJson = False,
) -> None:
    """List deliveries that wait for a person. States: failed, unknown, expired."""
    from postier.console.deliveries import print_list
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        found = find(
            opened, FAILED, state, account=account, kind=kind, tenant=tenant, since=since, until=until, limit=limit
        )
        print_list(opened, found, json_output=json_output)


@app.command(epilog=EPILOG)
def show(id: Annotated[str, typer.Argument(help="A delivery's id.")], json_output: AsJson = False) -> None:
    """Show one of them with its timeline. Exit 1 when it does not wait for a person."""
    from postier.console import status
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        found = opened.queries.status(id)
        if found is None or found.state not in FAILED:
            complain(f"postier: {safe(id)} {'is not known' if found is None else 'is ' + safe(found.state)}")
            raise typer.Exit(NEGATIVE)
        status.show(opened, [found], json_output=json_output)


@app.command(epilog=EPILOG)
def replay(
    ids: Ids = None,
    all_: All = False,
    state: StateNames = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Start deliveries anew: by id, or with --all those that the filters leave. Exit 1 when one was not replayed."""
    from postier.console.ledger_access import ledger

    with ledger() as opened:
        chosen = list(ids or [])
        if all_:
            found = find(
                opened, FAILED, state, account=account, kind=kind, tenant=tenant, since=since, until=until, limit=_ALL
            )
            chosen += [one.id for one in found]
        _agree("replay", chosen, all_=all_, yes=yes)
        _tell(opened.manage().replay(chosen), "replayed", json_output=json_output)


@app.command(epilog=EPILOG)
def discard(
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the timeline.")],
    ids: Ids = None,
    all_: All = False,
    state: StateNames = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Give up on deliveries: by id, or with --all those that the filters leave. Their content is removed."""
    from postier.console.ledger_access import ledger

    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    with ledger() as opened:
        chosen = list(ids or [])
        if all_:
            found = find(
                opened, FAILED, state, account=account, kind=kind, tenant=tenant, since=since, until=until, limit=_ALL
            )
            chosen += [one.id for one in found]
        _agree("discard", chosen, all_=all_, yes=yes)
        _tell(opened.manage().discard(chosen, reason), "discarded", json_output=json_output)


def _agree(verb: str, chosen: list[str], *, all_: bool, yes: bool) -> None:
    if len(chosen) >= _ALL:
        complain(f"postier: {_ALL} at a time; there may be more")
    if not chosen and not all_:
        raise typer.BadParameter("give delivery ids, or --all", param_hint="ids")
    if not all_ or yes or not chosen:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"say --yes to {verb} {len(chosen)} deliveries", param_hint="--all")
    if not typer.confirm(f"{verb} {len(chosen)} deliveries?", err=True):
        raise typer.Exit(NEGATIVE)


def _tell(answers: Iterable[tuple[str, Answer]], done: str, *, json_output: bool) -> None:
    count, others = 0, 0
    for delivery_id, answer in answers:
        count, others = (count + 1, others) if answer == "done" else (count, others + 1)
        if json_output:
            say_json({"id": delivery_id, "result": done if answer == "done" else answer})
        elif answer != "done":
            complain(f"{safe(delivery_id)} {_WORDS[answer]}")
    if not json_output:
        say(f"{count} {done}" + (f", {others} not" if others else ""))
    if others:
        raise typer.Exit(NEGATIVE)
