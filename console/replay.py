"""`postier failed replay` and `postier replays`: a new start for deliveries, previewed, paced, stopped, looked at."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson, KindName, StateNames, TenantName, read_moment
from postier.console.output import NEGATIVE, OK, bar, complain, moment, safe, say, say_json, span, table
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
    refuse_unknown_group,
)

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger
    from postier.ledger.replay import How, Preview, Progress

REPLAYABLE = ("failed", "unknown", "expired")
app = typer.Typer(help="Replays: how they go, and stopping them.", no_args_is_help=True, rich_markup_mode=None)

WHY = {
    "not_possible": "is not failed, unknown or expired any more",
    "already_sent": "was sent already",
    "over": "was of use for a limited time, which has passed: publish a new event",
    "unknown_id": "is not known",
    "unknown": "may have left already: look at `postier unknown list`, or say --unknown-too",
    "no_content": "has lost its content",
    "other_tenant": "belongs to a tenant that may not use this account",
    "in_this_replay": "is in this replay already",
    "stopped": "was not started: the replay was stopped",
}
_KINDS_OF_STAY = {
    "not_possible": "not waiting for a person any more", "already_sent": "already sent, excluded",
    "over": "expired, skipped", "unknown_id": "not known", "unknown": "unknown outcome: may have left, not replayed "
    "without --unknown-too", "other_tenant": "of a tenant that may not use this account",
    "no_content": "without content: it is gone",
}  # fmt: skip


def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Delivery ids.")] = None,
    all_: All = False,
    group: Group = None,
    file: File = None,
    state: StateNames = None,
    of_account: Annotated[str | None, typer.Option("--of-account", help="Only what failed by this account.")] = None,
    kind: KindName = None,
    tenant: TenantName = None,
    cause: Cause = None,
    text: Text = None,
    since: FailedSince = None,
    until: FailedUntil = None,
    account: Annotated[str | None, typer.Option("--account", help="Send by this account instead of their own.")] = None,
    pace: Annotated[str | None, typer.Option("--pace", help="At most so many: 5/s, 100/min, 1000/h.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Not before this time (ISO 8601).")] = None,
    edit: Annotated[
        str | None,
        typer.Option("--edit", help="JSON file with the corrected event of one delivery; - opens $EDITOR."),
    ] = None,
    unknown_too: Annotated[bool, typer.Option("--unknown-too", help="Also what may have left already.")] = False,
    replay_id: Annotated[
        str | None, typer.Option("--replay-id", help="Go on with this replay: nobody gets it twice.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the preview.")] = False,
    yes: Yes = False,
    confirm: Confirm = None,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Start deliveries anew: by id, group or file, or with --all those that the filters leave. What would happen is
    counted first. Exit 1 when one that was named was not replayed."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.groups import Groups
    from postier.ledger.replay import How, Replays

    how = How(pace=read_pace(pace), at=read_moment(at, "--at"), account=account, unknown_too=unknown_too)
    states = checked_states(state, REPLAYABLE) or list(REPLAYABLE)
    wanted = filters_of(account=of_account, kind=kind, tenant=tenant, cause=cause, text=text, since=since, until=until)
    with ledger() as opened:
        who = by or whoami()
        if edit is not None:
            from postier.console.correct import correct

            correct(opened, ids or [], edit, account=account, who=who, dry_run=dry_run, json_output=json_output)
            return
        _refuse_unknown_account(opened, account)
        if dry_run and (all_ or group is not None) and not (ids or file or text):
            refuse_unknown_group(opened.store, group)
            spans = Groups(opened.store).spans(wanted, states=states, group=group)
            with bar("counting", sum(span.last - span.first + 1 for span in spans)) as told:
                counted = Replays(opened.store, who).preview_groups(spans, how, opened.registry(), told=told)
            _print_preview(counted, how, say, json_output=json_output)
            return
        with choose(opened.store, ids, file=file, all_=all_, group=group, filters=wanted, states=states) as chosen:
            replays = Replays(opened.store, who)
            preview = replays.preview(chosen, how, opened.registry())
            if dry_run:
                _print_preview(preview, how, say, json_output=json_output)
                return
            if not chosen.explicit:
                _print_preview(preview, how, complain, json_output=False)
            agree("replay", preview.starts, explicit=chosen.explicit, yes=yes, confirm=confirm)
            replay_id = replay_id or Replays.new_id()
            with bar("replaying", chosen.count) as told:
                answers = replays.start(chosen, how, opened.registry(), replay_id=replay_id, told=told)
                tally = _tell(answers, each=chosen.explicit, json_output=json_output)
            _sum_up(tally, replay_id, how, explicit=chosen.explicit, json_output=json_output)


def read_pace(text: str | None) -> float | None:
    """Mails per second from `5/s`, `100/min`, `1000/h`. Raises a usage error."""
    if text is None:
        return None
    number, _, unit = text.partition("/")
    seconds = {"s": 1, "sec": 1, "": 1, "m": 60, "min": 60, "h": 3600}.get(unit.strip())
    try:
        found = float(number) / (seconds or 0)
    except (ValueError, ZeroDivisionError):
        found = 0.0
    if not 0.0001 <= found <= 10_000:
        raise typer.BadParameter("give a pace like 5/s, 100/min or 1000/h", param_hint="--pace")
    return found


def pace_in_words(pace: float) -> str:
    """In the unit that makes it a whole number: 5/s, 100/min, 500/h."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if abs(pace * seconds - round(pace * seconds)) < 1e-6 * pace * seconds:
            return f"{round(pace * seconds)}/{unit}"
    return f"{pace * 3600:g}/h"


def _refuse_unknown_account(opened: Ledger, account: str | None) -> None:
    if account is not None and account not in opened.registry().accounts:
        raise typer.BadParameter(f"no account is named {safe(account)}", param_hint="--account")


def _print_preview(preview: Preview, how: How, line: Callable[[str], None], *, json_output: bool) -> None:
    if json_output:
        say_json({"dry_run": True, **preview.as_dict()})
        return
    accounts = ", ".join(f"{safe(name)} {count}" for name, count in preview.accounts.most_common(12))
    line(f"{preview.starts} of {preview.total} would start anew" + (f", by account: {accounts}" if accounts else ""))
    if how.account:
        line(f"all by account {safe(how.account)} instead of their own")
    for why, count in preview.stays.most_common():
        line(f"{count} {_KINDS_OF_STAY.get(why, why)}")
    if how.pace:
        line(f"at {pace_in_words(how.pace)} the last one starts {span(preview.lasts)} after the first")
    if how.at:
        line(f"not before {moment(how.at)}")


def _tell(answers: Iterator[tuple[str, Any]], *, each: bool, json_output: bool) -> Counter[str]:
    tally: Counter[str] = Counter()
    for delivery_id, answer in answers:
        tally[answer] += 1
        if each and json_output:
            say_json({"id": delivery_id, "result": "replayed" if answer == "done" else answer})
        elif each and answer != "done":
            complain(f"{safe(delivery_id)} {WHY.get(answer, answer)}")
    return tally


def _sum_up(tally: Counter[str], replay_id: str, how: How, *, explicit: bool, json_output: bool) -> None:
    done = tally.pop("done", 0)
    others = sum(tally.values())
    if not explicit and json_output:
        say_json({"replay": replay_id, "replayed": done, "stays": dict(tally)})
    elif not json_output:
        say(f"{done} replayed" + (f", {others} not" if others else ""))
    if done and (how.pace or how.at or not explicit):
        complain(f"this is replay {replay_id}: `postier replays show {replay_id}`, `postier replays stop {replay_id}`")
    if others and explicit:
        raise typer.Exit(NEGATIVE)


ReplayId = Annotated[str, typer.Argument(help="The replay's id.")]


@app.command("list", epilog=EPILOG)
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 20,
    json_output: AsJson = False,
) -> None:
    """List replays, the latest first."""
    from postier.console.ledger_access import ledger
    from postier.ledger.replay import Replays

    with ledger() as opened:
        found = Replays(opened.store, "").newest(limit)
    if json_output:
        for one in found:
            say_json(one.as_dict())
        return
    table(
        ("replay", "by", "at", "deliveries", "pace", "account", "stopped"),
        [
            (
                one.id, one.by, moment(one.created_at), one.total, pace_in_words(one.pace) if one.pace else "",
                one.account, moment(one.stopped_at),
            )
            for one in found
        ],
    )  # fmt: skip


@app.command(epilog=EPILOG)
def show(
    id: ReplayId,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until it is over.")] = False,
    json_output: AsJson = False,
) -> None:
    """Show what became of a replay's deliveries. Exit 1 when it is not known."""
    from postier.console.ledger_access import ledger
    from postier.ledger.replay import Replays

    with ledger() as opened:
        replays = Replays(opened.store, "")
        while True:
            found = replays.progress(id)
            if found is None:
                _not_known(id)
                return
            _print_progress(found, json_output=json_output)
            if not watch or found.left == 0:
                return
            time.sleep(1.0)


def _print_progress(found: Progress, *, json_output: bool) -> None:
    if json_output:
        say_json(found.as_dict())
        return
    states = ", ".join(f"{count} {safe(state)}" for state, count in sorted(found.states.items()))
    stopped = f"; stopped {moment(found.stopped_at)}" if found.stopped_at else ""
    say(f"{found.total - found.left} of {found.total} over: {states or 'nothing in it'}{stopped}")


@app.command(epilog=EPILOG)
def stop(id: ReplayId, by: By = None, json_output: AsJson = False) -> None:
    """Stop a replay: what still waits for its first attempt goes back to where it failed. Safe to repeat."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.replay import Replays

    with ledger() as opened:
        undone = Replays(opened.store, by or whoami()).stop(id)
    if undone is None:
        _not_known(id)
    elif json_output:
        say_json({"replay": id, "taken_back": undone})
    else:
        say(f"{undone} taken back")
    raise typer.Exit(OK)


def _not_known(id: str) -> None:
    complain(f"postier: no replay is known as {safe(id)}: `postier replays list`")
    raise typer.Exit(NEGATIVE)
