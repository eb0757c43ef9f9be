"""`postier unknown`: mail of which nobody knows whether it left, the evidence, and a person's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AccountName, AsJson, KindName, TenantName
from postier.console.output import complain, moment, safe, say, say_json
from postier.console.selection import (
    All,
    By,
    Cause,
    Confirm,
    FailedSince,
    FailedUntil,
    Group,
    Yes,
    agree,
    choose,
    filters_of,
)

if TYPE_CHECKING:
    from postier.ledger.queries import Status

app = typer.Typer(help="Mail that may have left: evidence, and a verdict.", no_args_is_help=True, rich_markup_mode=None)
_UNKNOWN = ("unknown",)


def evidence_of(status: Status) -> dict[str, Any]:
    """What is known of the attempt that nobody knows the end of."""
    last: dict[str, Any] = next((line for line in reversed(status.history) if line.get("what") == "unknown"), {})
    found = {
        "message_id": status.facts.get("message_id"), "cause": status.cause, "attempt": last.get("attempt"),
        "stage": last.get("stage"), "handed_over_at": status.facts.get("sending_at"), "worker": last.get("worker"),
        "code": last.get("code"), "words": last.get("words"), "evidence": last.get("evidence"),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value not in (None, "")}


@app.command("list", epilog=EPILOG)
def list_(
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    since: FailedSince = None,
    until: FailedUntil = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 100,
    json_output: AsJson = False,
) -> None:
    """List mail that may have left, with what to search for at the provider."""
    from postier.console.ledger_access import ledger

    wanted = filters_of(account=account, kind=kind, tenant=tenant, since=since, until=until)
    with ledger() as opened:
        found = opened.queries.failures(wanted, states=_UNKNOWN, limit=limit)
        whole = opened.queries.statuses(one.id for one in found)
    if not whole and not json_output:
        say("of all mail it is known whether it left")
    for one in whole:
        evidence = evidence_of(one)
        if json_output:
            say_json({**one.as_dict(), "evidence": evidence})
            continue
        say(f"{one.id}  {safe(one.kind)} to {safe(one.recipient)} by {safe(one.account)}, {moment(one.ended_at)}")
        say(f"  search for {safe(evidence.get('message_id', ''))} from {moment(evidence.get('handed_over_at'))}")
        say(f"  {_in_words(evidence)}")


def _in_words(evidence: dict[str, Any]) -> str:
    from postier.console.timeline import evidence_in_words
    from postier.console.words import cause_in_words, reply_in_words

    stage = f"stage {safe(evidence['stage'])}" if evidence.get("stage") else ""
    parts = (
        cause_in_words(str(evidence.get("cause", ""))),
        stage,
        evidence_in_words(evidence),
        reply_in_words(evidence),
    )
    return "; ".join(part for part in parts if part)


@app.command(epilog=EPILOG)
def resolve(
    ids: Annotated[list[str] | None, typer.Argument(help="Delivery ids.")] = None,
    sent: Annotated[bool, typer.Option("--sent", help="The provider has it: it was sent.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="The provider does not have it: send it again.")] = False,
    all_: All = False,
    group: Group = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    cause: Cause = None,
    yes: Yes = False,
    confirm: Confirm = None,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Say what became of mail that may have left: --sent, or --resend (same Message-ID). Exit 1 when one was not."""
    from postier.console.failed import tell
    from postier.console.ledger_access import ledger, whoami
    from postier.console.replay import WHY
    from postier.ledger.manage import Management
    from postier.ledger.replay import How, Replays

    if sent == resend:
        raise typer.BadParameter("say either --sent or --resend")
    wanted = filters_of(account=account, kind=kind, tenant=tenant, cause=cause)
    with (
        ledger() as opened,
        choose(opened.store, ids, file=None, all_=all_, group=group, filters=wanted, states=_UNKNOWN) as chosen,
    ):
        who = by or whoami()
        agree("resolve", chosen.count, explicit=chosen.explicit, yes=yes, confirm=confirm)
        if sent:
            tell(Management(opened.store, who).resolve(chosen), "resolved", json_output=json_output)
            return
        only = opened.queries.in_state(chosen, "unknown")
        count = 0
        for delivery_id, answer in Replays(opened.store, who).start(only, How(unknown_too=True), opened.registry()):
            count += answer == "done"
            if json_output:
                say_json({"id": delivery_id, "result": "resent" if answer == "done" else answer})
            elif answer != "done":
                complain(f"{safe(delivery_id)} {WHY.get(answer, answer)}")
        others = chosen.count - count
    if not json_output:
        say(f"{count} sent again" + (f", {others} not" if others else ""))
    if others:
        raise typer.Exit(1)
