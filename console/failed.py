"""`postier failed`: deliveries that wait for a person, in groups and one by one, and how to give them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console import replay
from postier.console.arguments import EPILOG, AccountName, AsJson, KindName, StateNames, TenantName
from postier.console.output import NEGATIVE, complain, moment, safe, say, say_json, table
from postier.console.selection import (
    All,
    By,
    Cause,
    Confirm,
    FailedSince,
    FailedUntil,
    File,
    Group,
    Text,
    Yes,
    agree,
    checked_states,
    choose,
    filters_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postier.ledger.groups import Group as LedgerGroup
    from postier.ledger.manage import Answer
    from postier.ledger.search import Filters

app = typer.Typer(
    help="Deliveries that wait for a person: failed, unknown (may have left), expired, suppressed.",
    rich_markup_mode=None,
)
FAILED = ("failed", "unknown", "expired", "suppressed")

app.command(epilog=EPILOG)(replay.replay)


@app.callback(invoke_without_command=True, epilog=EPILOG)
def groups(
    context: typer.Context,
    state: StateNames = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    cause: Cause = None,
    text: Text = None,
    since: FailedSince = None,
    until: FailedUntil = None,
    json_output: AsJson = False,
) -> None:
    """Show what waits for a person in groups: how many, since when, why, and what to do. The commands below look at
    one group or delivery, replay it, or give it up."""
    if context.invoked_subcommand is not None:
        return
    wanted = filters_of(account=account, kind=kind, tenant=tenant, cause=cause, text=text, since=since, until=until)
    _print_groups(wanted, checked_states(state, FAILED), json_output=json_output)


def _print_groups(filters: Filters, states: list[str] | None, *, json_output: bool) -> None:
    from postier.console.ledger_access import ledger
    from postier.console.words import group_advice, group_in_words, runbook_page
    from postier.ledger.groups import Groups
    from postier.ledger.search import Filters

    with ledger() as opened:
        found = Groups(opened.store).find(filters, states=states)
    if json_output:
        for one in found:
            more = {
                "in_words": group_in_words(one),
                "advice": group_advice(one),
                "runbook": runbook_page(one.cause, one.state),
            }
            say_json({**one.as_dict(), **more})
        return
    if not found:
        filtered = states is not None or filters != Filters()
        say("nothing that fits waits for a person" if filtered else "nothing waits for a person")
        return
    table(
        ("group", "count", "state", "class", "account", "kind", "first", "last"),
        [
            (
                one.id,
                one.count,
                one.state,
                one.cause or one.state,
                one.account,
                one.kind,
                moment(one.first),
                moment(one.last),
            )
            for one in found
        ],
    )
    for one in found[:20]:
        say()
        _explain(one)


def _explain(one: LedgerGroup) -> None:
    from postier.console.words import group_advice, group_in_words, runbook_page

    say(f"{one.id}  {safe(group_in_words(one))}")
    say(f"          {safe(group_advice(one))}")
    say(f"          postier runbook {runbook_page(one.cause, one.state)} · postier failed list --group {one.id}")


@app.command("list", epilog=EPILOG)
def list_(
    state: StateNames = None,
    group: Group = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    cause: Cause = None,
    text: Text = None,
    since: FailedSince = None,
    until: FailedUntil = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 100,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Whole addresses; that you looked goes to the audit.")
    ] = False,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """List what waits for a person, the latest failure first. States: failed, unknown, expired, suppressed."""
    from postier.console.deliveries import print_list
    from postier.console.ledger_access import ledger, whoami

    wanted = filters_of(account=account, kind=kind, tenant=tenant, cause=cause, text=text, since=since, until=until)
    with ledger() as opened:
        found = opened.queries.failures(wanted, states=checked_states(state, FAILED), group=group, limit=limit)
        if reveal and found:
            from postier.ledger.reveal import revealed

            found = revealed(opened.store, found, opened.settings.sealer(), who=by or whoami())
        print_list(opened, found, json_output=json_output, failed=True)


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
def discard(
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the timeline and the audit.")],
    ids: Annotated[list[str] | None, typer.Argument(help="Delivery ids.")] = None,
    all_: All = False,
    group: Group = None,
    file: File = None,
    state: StateNames = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    cause: Cause = None,
    text: Text = None,
    since: FailedSince = None,
    until: FailedUntil = None,
    yes: Yes = False,
    confirm: Confirm = None,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Give up on deliveries: by id, group or file, or with --all those that the filters leave. Their content is
    removed: `postier export` keeps what is known of them."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.manage import Management

    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    wanted = filters_of(account=account, kind=kind, tenant=tenant, cause=cause, text=text, since=since, until=until)
    states = checked_states(state, FAILED)
    with (
        ledger() as opened,
        choose(opened.store, ids, file=file, all_=all_, group=group, filters=wanted, states=states) as chosen,
    ):
        agree("discard", chosen.count, explicit=chosen.explicit, yes=yes, confirm=confirm)
        tell(Management(opened.store, by or whoami()).discard(chosen, reason), "discarded", json_output=json_output)


def tell(
    answers: Iterable[tuple[str, Answer]], done: str, *, json_output: bool, refusal: str = "does not wait any more"
) -> None:
    """Say what became of each id that was not done, and how many were. Exit 1 when one was not."""
    words = {"not_possible": refusal, "unknown_id": "is not known"}
    count, others = 0, 0
    for delivery_id, answer in answers:
        count, others = (count + 1, others) if answer == "done" else (count, others + 1)
        if json_output:
            shown: dict[str, Any] = {"id": delivery_id, "result": done if answer == "done" else answer}
            say_json(shown)
        elif answer != "done":
            complain(f"{safe(delivery_id)} {words[answer]}")
    if not json_output:
        say(f"{count} {done}" + (f", {others} not" if others else ""))
    if others:
        raise typer.Exit(NEGATIVE)
