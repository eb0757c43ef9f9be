"""Options that several commands take, and the help they share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from postier.console.output import EXIT_CODES, parse_moment

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.ledger.queries import Status

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
AccountName = Annotated[str | None, typer.Option("--account", help="Only this account.")]
KindName = Annotated[str | None, typer.Option("--kind", help="Only this kind of event.")]
TenantName = Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")]
StateNames = Annotated[list[str] | None, typer.Option("--state", help="Only this state; may be repeated.")]
Since = Annotated[str | None, typer.Option("--since", help="Accepted since: a time (ISO 8601) or an age like 2h.")]
Until = Annotated[str | None, typer.Option("--until", help="Accepted before: a time (ISO 8601) or an age like 2h.")]

EPILOG = EXIT_CODES


def find(
    ledger: Ledger,
    states: Sequence[str],
    chosen: Iterable[str] | None,
    *,
    account: str | None,
    kind: str | None,
    tenant: str | None,
    since: str | None,
    until: str | None,
    limit: int,
) -> list[Status]:
    """Deliveries in one of `states`, or in those `chosen` among them. Raises a usage error for other words."""
    wanted = list(chosen or states)
    for state in wanted:
        if state not in states:
            raise typer.BadParameter(f"{state!r} is none of {', '.join(states)}", param_hint="--state")
    return ledger.queries.deliveries(
        states=wanted, account=account, kind=kind, tenant=tenant, since=read_moment(since, "--since"),
        until=read_moment(until, "--until"), limit=limit,
    )  # fmt: skip


def read_moment(text: str | None, option: str) -> float | None:
    """The time an option gives. Raises a usage error."""
    if text is None:
        return None
    try:
        return parse_moment(text, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
