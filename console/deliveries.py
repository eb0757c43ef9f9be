"""`postier deliveries list`."""

from __future__ import annotations

import time
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
from postier.console.output import moment, say_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postier.console.ledger_access import Ledger
    from postier.ledger.queries import Status

app = typer.Typer(help="Look at deliveries.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Look at deliveries."""


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
    """List deliveries, the latest accepted first. States: waiting, leased, sending, sent, failed, expired, unknown,
    discarded, suppressed."""
    from postier.console.ledger_access import ledger
    from postier.ledger.queries import STATES

    with ledger() as opened:
        found = find(
            opened, STATES, state, account=account, kind=kind, tenant=tenant, since=since, until=until, limit=limit
        )
        print_list(opened, found, json_output=json_output)


def print_list(opened: Ledger, found: Sequence[Status], *, json_output: bool, failed: bool = False) -> None:
    """Deliveries as a table, or one JSON object a line. Of what `failed`, when it did and the last reply are shown."""
    from postier.console.words import reply_in_words, state_in_words

    accounts = opened.queries.accounts() if found and not json_output else {}
    if json_output:
        for one in found:
            say_json(one.as_dict())
        return

    def words(one: Status) -> str:
        said = reply_in_words({**one.facts, "words": one.words}) if failed else ""
        return state_in_words(one, accounts, time.time()) + (f" — {said}" if said else "")

    when = "ended" if failed else "accepted"
    table(
        ("delivery", "state", "kind", "account", "recipient", when, "attempts", "in words"),
        [
            (
                one.id, one.state, one.kind, one.account, one.recipient,
                moment(one.ended_at if failed else one.accepted_at), one.attempt, words(one),
            )
            for one in found
        ],
    )  # fmt: skip
