"""`postier export`, `purge` and `erase`: records go out before they go away."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from postier.console.arguments import EPILOG, AccountName, AsJson, KindName, StateNames, TenantName
from postier.console.output import NEGATIVE, USAGE, as_json, bar, complain, safe, say, say_json
from postier.console.selection import (
    By,
    Cause,
    Confirm,
    FailedSince,
    FailedUntil,
    Group,
    Text,
    Yes,
    agree,
    checked_states,
    filters_of,
)

if TYPE_CHECKING:
    from postier.ledger.erasure import Erased

_PURGEABLE = ("failed", "unknown", "expired", "suppressed", "sent", "discarded")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=EPILOG)(export)
    app.command(epilog=EPILOG)(purge)
    app.command(epilog=EPILOG)(erase)


def export(
    file: Annotated[
        str, typer.Argument(help="Where to; - is standard output. An existing file is not overwritten.")
    ] = "-",
    state: StateNames = None,
    group: Group = None,
    account: AccountName = None,
    kind: KindName = None,
    tenant: TenantName = None,
    cause: Cause = None,
    text: Text = None,
    since: FailedSince = None,
    until: FailedUntil = None,
    by: By = None,
    json_output: Annotated[bool, typer.Option("--json", help="JSON is the only form of this answer.")] = True,  # noqa: ARG001
) -> None:
    """Write ended deliveries with their timelines as JSON Lines, those that wait for a person without --state. Contents
    and whole addresses are not in it. States: failed, unknown, expired, suppressed, sent, discarded."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.audit import Audit
    from postier.ledger.groups import WAITING_FOR_A_PERSON
    from postier.ledger.records import Records

    states = checked_states(state, _PURGEABLE) or list(WAITING_FOR_A_PERSON)
    wanted = filters_of(account=account, kind=kind, tenant=tenant, cause=cause, text=text, since=since, until=until)
    count = 0
    with ledger() as opened:
        who = by or whoami()
        out = _opened_for_writing(file)
        lines = Records(opened.store, who).export(opened.queries.ended(wanted, states=states, group=group))
        try:
            with bar("exporting", None) as told:
                for count, line in enumerate(lines, 1):
                    out.write(as_json(line) + "\n")
                    if count % 1000 == 0:
                        told(count)
            out.flush()
            if file != "-":
                os.fsync(out.fileno())
        finally:
            if file != "-":
                out.close()
        Audit(opened.store).record(who=who, what="records.exported", count=count, details={"states": states})
    complain(f"{count} exported" + (f" to {safe(file)}" if file != "-" else ""))


def _opened_for_writing(file: str) -> TextIO:
    if file == "-":
        return sys.stdout
    try:
        return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
    except OSError as error:
        complain(f"postier: cannot write {safe(file)}: {error.strerror}")
        raise typer.Exit(USAGE) from None


def purge(
    file: Annotated[str, typer.Argument(help="An export: exactly what it lists is removed.")],
    early: Annotated[bool, typer.Option("--early", help="Also what ended within its time of retention.")] = False,
    yes: Yes = False,
    confirm: Confirm = None,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Remove exported deliveries for good, content and all. What changed since the export stays, and so does what ended
    within its tenant's time of retention (keep_days; 30 days)."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.records import Records

    with ledger() as opened:
        tenants = opened.registry().tenants
        usual = opened.settings.keep_sent_seconds
        now = time.time()

        def old_enough(line: dict[str, Any]) -> bool:
            tenant = tenants.get(str(line.get("tenant")))
            kept = tenant.keep_days * 86_400 if tenant and tenant.keep_days else usual
            return early or float(line.get("ended_us") or 0) / 1e6 <= now - kept

        total = sum(1 for _ in _lines(file))
        count = sum(1 for line in _lines(file) if old_enough(line))
        if count < total:
            complain(f"{total - count} ended within their time of retention: they stay")
        agree("remove", count, explicit=False, yes=yes, confirm=confirm)
        gone = others = 0
        for delivery_id, answer in Records(opened.store, by or whoami()).purge(
            line for line in _lines(file) if old_enough(line)
        ):
            gone, others = (gone + 1, others) if answer == "done" else (gone, others + 1)
            if answer != "done" and not json_output:
                complain(f"{safe(delivery_id)} {'changed since' if answer == 'not_possible' else 'is not known'}")
    if json_output:
        say_json({"removed": gone, "not": others})
    else:
        say(f"{gone} removed" + (f", {others} not" if others else ""))
    if others:
        raise typer.Exit(NEGATIVE)


def _lines(file: str) -> Iterator[dict[str, Any]]:
    try:
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found = json.loads(line)
                    if str(found["id"]) and int(found["ended_us"]):
                        yield found
                except (ValueError, KeyError, TypeError):
                    complain(f"postier: {safe(file)}: line {number} is not of an export")
                    raise typer.Exit(USAGE) from None
    except OSError as error:
        complain(f"postier: cannot read {safe(file)}: {error.strerror}")
        raise typer.Exit(USAGE) from None


def erase(
    address: Annotated[str, typer.Argument(help="The person's address.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose mail it is about.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: By = None,
    json_output: AsJson = False,
) -> None:
    """Remove what the ledger knows of one person, as a recipient and in the content of mail to others: such mail is
    given up where it waits; contents, servers' words and provider's ids go. Everything is read: allow a minute for a
    million deliveries. Exit 1 when something was left: mail under way, or sealed with a key that is not here."""
    from postier.console.ledger_access import ledger, whoami
    from postier.ledger.erasure import Erasure
    from postier.schemas.address import parse_address

    try:
        person = parse_address(address.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="address") from None
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("say --yes to erase a person's data", param_hint="--yes")
        if not typer.confirm("erase all data of this person?", err=True):
            raise typer.Exit(NEGATIVE)
    with ledger() as opened, bar("looking", sum(opened.queries.counts().values())) as told:
        erasure = Erasure(opened.store, by or whoami(), person, tenant, opened.settings.sealer())
        done = erasure.run(told)
    if json_output:
        say_json(done.as_dict())
    else:
        _say_erased(done)
    if done.under_way or done.unopened:
        raise typer.Exit(NEGATIVE)


def _say_erased(done: Erased) -> None:
    say(f"{done.erased} erased, and {done.named} to others that named the person; {done.inbox} from the inbox")
    if done.under_way:
        say(f"{done.under_way} are under way: say it again in a minute")
    if done.unopened:
        say(f"{done.unopened} could not be looked into: they are sealed with a key that is not in POSTIER_SEAL_KEYS")
    for place in done.stays:
        say(f"the address stands on in {safe(place)}")
    complain("Redis keeps what was there in its files until it rewrites them (BGREWRITEAOF, BGSAVE); so do backups")
