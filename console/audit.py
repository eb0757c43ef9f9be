"""`postier audit`: who did what, when, to how many."""

from __future__ import annotations

from typing import Annotated

import typer

from postier.console.arguments import EPILOG, AsJson, read_moment
from postier.console.output import moment, say_json, table

app = typer.Typer(help="Who did what, when, to how many.", no_args_is_help=True, rich_markup_mode=None)

AuditSince = Annotated[str | None, typer.Option("--since", help="Since a time (ISO 8601) or an age like 2h.")]


@app.command("list", epilog=EPILOG)
def list_(
    since: AuditSince = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 50,
    json_output: AsJson = False,
) -> None:
    """List what people did, the latest first."""
    from postier.console.ledger_access import ledger
    from postier.ledger.audit import Audit

    with ledger() as opened:
        found = Audit(opened.store).entries(limit, since=read_moment(since, "--since"))
    if json_output:
        for one in found:
            say_json(one.as_dict())
        return
    table(
        ("at", "who", "what", "subject", "count", "details"),
        [
            (moment(one.at), one.who, one.what, one.subject, one.count,
             ", ".join(f"{key} {value}" for key, value in one.details.items()))
            for one in found
        ],
    )  # fmt: skip


@app.command(epilog=EPILOG)
def export(
    since: AuditSince = None,
    json_output: Annotated[bool, typer.Option("--json", help="JSON is the only form of this answer.")] = True,  # noqa: ARG001
) -> None:
    """Write the whole audit as JSON Lines, the oldest first."""
    from postier.console.ledger_access import ledger
    from postier.ledger.audit import KEPT, Audit

    with ledger() as opened:
        for one in reversed(Audit(opened.store).entries(KEPT + 1000, since=read_moment(since, "--since"))):
            say_json(one.as_dict())
