"""`postier doctor`: is everything here that mail needs?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, safe, say, say_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(doctor)


def doctor(
    new_seal_key: Annotated[
        bool, typer.Option("--new-seal-key", help="Print a fresh key for POSTIER_SEAL_KEYS, and nothing else.")
    ] = False,
    indexes: Annotated[bool, typer.Option("--indexes", help="Compare every record with the indexes.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compare them and mend the indexes, in small steps.")
    ] = False,
    health: Annotated[
        bool, typer.Option("--health", help="Only what a worker cannot be without: settings, seal keys and Redis.")
    ] = False,
    accept_dataset: Annotated[
        bool,
        typer.Option("--accept-dataset", help="Let workers go on with a ledger that was flushed or restored."),
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Check settings, seal keys, Redis, accounts and workers. Exit 1 when a check fails; warnings do not count."""
    from postier.console.doctor_checks import examine
    from postier.settings.seal import Sealer

    if new_seal_key:
        key = Sealer.new_key()
        if json_output:
            say_json({"seal_key": key})
        else:
            say(key)
        return
    if accept_dataset:
        _accept(json_output)
        return
    findings = []
    for finding in examine(health=health, thorough=indexes, mend=repair):
        findings.append(finding)
        if not json_output:
            say(f"{finding.result:<5} {finding.name:<11} {safe(finding.words)}")
            if finding.advice:
                say(f"      {'':<11} {safe(finding.advice)}")
    healthy = all(finding.result != "fail" for finding in findings)
    if json_output:
        say_json({"ok": healthy, "checks": [asdict(finding) for finding in findings]})
    if not healthy:
        raise typer.Exit(NEGATIVE)


def _accept(json_output: bool) -> None:
    from postier.console.ledger_access import ledger
    from postier.ledger.dataset import accept_dataset

    with ledger() as opened:
        accepted = accept_dataset(opened.store)
    if json_output:
        say_json({"accepted": accepted})
    else:
        say("Workers go on with this ledger." if accepted else "No worker had stopped: nothing to accept.")
