"""`postier inbox`: events that any language pushed, those that were refused, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson, KindName, TenantName
from postier.console.output import NEGATIVE, complain, moment, safe, say, say_json, table
from postier.console.selection import All, By, Confirm, Yes, agree

if TYPE_CHECKING:
    from postier.ledger.inbox import Refused, RefusedEvents

app = typer.Typer(
    help="Events pushed by any language: what waits, what was refused and why.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of `postier inbox list`.")]
Code = Annotated[str | None, typer.Option("--code", help="Only refusals with this code.")]
_WHY = {"unknown": "is none of the refused", "sealed": "is sealed with a key that is not in POSTIER_SEAL_KEYS"}


def _as_dict(one: Refused) -> dict[str, Any]:
    named = {member: one.named(member) or None for member in ("kind", "tenant")}
    return {"id": one.id, "at": one.at / 1e6, "event": one.named("id") or None, **named, **one.error}


def _left(found: list[Refused], code: str | None, kind: str | None, tenant: str | None) -> list[Refused]:
    wanted = {"kind": kind, "tenant": tenant}
    return [
        one
        for one in found
        if code in (None, one.error.get("code"))
        and all(value in (None, one.named(member)) for member, value in wanted.items())
    ]


@app.command("list", epilog=EPILOG)
def list_(
    code: Code = None,
    kind: KindName = None,
    tenant: TenantName = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    json_output: AsJson = False,
) -> None:
    """List what was refused, the latest first: which field, and why."""
    from postier.console.ledger_access import ledger
    from postier.ledger.inbox import RefusedEvents, inbox_counts

    with ledger() as opened:
        waiting, _ = inbox_counts(opened.store)
        found = _left(RefusedEvents(opened.store, opened.settings.sealer()).find(), code, kind, tenant)
    rows = [_as_dict(one) for one in found[:limit]]
    if json_output:
        for row in rows:
            say_json(row)
        return
    if waiting:
        complain(f"{waiting} wait to be taken by a worker")
    if not rows:
        say("nothing refused is kept")
        return
    table(
        ("id", "at", "kind", "tenant", "field", "reason"),
        [
            (row["id"], moment(row["at"]), row["kind"] or "?", row["tenant"] or "?", row.get("field", ""),
             row.get("reason") or row.get("code", ""))
            for row in rows
        ],
    )  # fmt: skip
    if len(found) > limit:
        complain(f"{len(found) - limit} more: --limit, --code, --kind or --tenant")


@app.command(epilog=EPILOG)
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="An id of `postier inbox list`.")],
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Show one refused event whole, secrets and all: the look is in the audit. Exit 1 when it is not there."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.audit import Audit
    from postier.ledger.inbox import RefusedEvents

    with ledger() as opened:
        found = [one for one in RefusedEvents(opened.store, opened.settings.sealer()).find() if one.id == id_]
        if found:
            Audit(opened.store).record(who=by or whoami(), what="inbox.revealed", subject=id_)
    for one in found:
        text = one.raw.decode("utf-8", "backslashreplace")
        if json_output:
            say_json({**_as_dict(one), "content": text if one.raw else None})
            continue
        for name, value in _as_dict(one).items():
            if value not in (None, ""):
                say(f"{name:<12} {safe(moment(value) if name == 'at' else value)}")
        say()
        say(_indented(text) if one.raw else f"its content {_WHY['sealed']}")
    if not found:
        complain(f"postier: {safe(id_)} {_WHY['unknown']}")
        raise typer.Exit(NEGATIVE)


def _indented(text: str) -> str:
    try:
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return safe(text)
    return "\n".join(map(safe, text.split("\n")))


@app.command(epilog=EPILOG)
def retry(
    ids: Ids = None,
    all_: All = False,
    code: Code = None,
    kind: KindName = None,
    tenant: TenantName = None,
    yes: Yes = False,
    confirm: Confirm = None,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Put refused events back into the inbox, once what was wrong is right. Exit 1 when one could not be."""
    _change("retried", lambda events: events.retry, ids, all_, (code, kind, tenant), yes, confirm, by, json_output)


@app.command(epilog=EPILOG)
def discard(
    ids: Ids = None,
    all_: All = False,
    code: Code = None,
    kind: KindName = None,
    tenant: TenantName = None,
    yes: Yes = False,
    confirm: Confirm = None,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Remove refused events for good. Exit 1 when one was not there."""
    _change("discarded", lambda events: events.discard, ids, all_, (code, kind, tenant), yes, confirm, by, json_output)


def _change(
    done: str, act: Callable[[RefusedEvents], Callable[[list[str]], dict[str, str]]], ids: list[str] | None,
    all_: bool, filters: tuple[str | None, str | None, str | None], yes: bool, confirm: int | None, by: str | None,
    json_output: bool,
) -> None:  # fmt: skip
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.audit import Audit
    from postier.ledger.inbox import RefusedEvents

    if bool(ids) == (all_ or any(filters)):
        raise typer.BadParameter("give ids, or --all, --code, --kind or --tenant", param_hint="ids")
    with ledger() as opened:
        events = RefusedEvents(opened.store, opened.settings.sealer())
        chosen = list(ids or (one.id for one in _left(events.find(), *filters)))
        verb = "retry" if done == "retried" else "discard"
        agree(verb, len(chosen), explicit=bool(ids), yes=yes, confirm=confirm, what="refused events")
        answers = act(events)(chosen)
        count = sum(answer == "done" for answer in answers.values())
        if count:
            Audit(opened.store).record(who=by or whoami(), what=f"inbox.{done}", subject=chosen[0], count=count)
    for identity, answer in answers.items():
        if json_output:
            say_json({"id": identity, "result": done if answer == "done" else answer})
        elif answer != "done":
            complain(f"{safe(identity)} {_WHY[answer]}")
    if not json_output:
        say(f"{count} {done}" + (f", {len(answers) - count} not" if count < len(answers) else ""))
    if count < len(answers):
        raise typer.Exit(NEGATIVE)
