"""`postier deliveries`: look at them, and let those that wait for their next attempt be tried now."""

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
from postier.console.output import NEGATIVE, complain, moment, safe, say_json, table
from postier.console.selection import By

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postier.console.ledger_access import Ledger
    from postier.ledger.queries import Status

app = typer.Typer(help="Look at deliveries, and try them again now.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Look at deliveries, and try them again now."""


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


@app.command(epilog=EPILOG)
def retry(
    ids: Annotated[list[str] | None, typer.Argument(help="Delivery ids.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="All of this account.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of every account.")] = False,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Try what waits for its next attempt now, once the cause is gone: in its account's turn and limits, and not
    while that stands still. What ended is for `postier failed replay`."""
    from postier.console.failed import tell
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.manage import Management

    if sum((bool(ids), account is not None, all_)) != 1:
        raise typer.BadParameter("give delivery ids, or --account, or --all", param_hint="ids")
    with ledger() as opened:
        if account is not None and account not in opened.queries.accounts():
            complain(f"postier: no account is named {safe(account)}")
            raise typer.Exit(NEGATIVE)
        management = Management(opened.store, by or whoami())
        chosen = ids or management.between_attempts(account)
        tell(management.retry(chosen), "due now", json_output=json_output, refusal="waits for no next attempt")


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
