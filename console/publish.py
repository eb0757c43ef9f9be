"""`postier publish`: events from a file or a pipe."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from postier.console.arguments import EPILOG
from postier.console.output import REFUSED, UNAVAILABLE, USAGE, complain, safe, say_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(publish)


def publish(
    file: Annotated[str, typer.Argument(help="JSON Lines, one envelope a line; - reads standard input.")] = "-",
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="The tenant of envelopes that name none; others are refused.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to go on trying while the ledger is away.")
    ] = 30.0,
    json_output: Annotated[bool, typer.Option("--json", help="JSON is the only form of this answer.")] = True,  # noqa: ARG001
) -> None:
    """Publish events; one JSON answer a line, in order.

    Publishing the same file again answers the same ids and sends nothing twice: an envelope without an id has one
    derived from its content.
    """
    from postier.client.postier import Postier
    from postier.console.publish_lines import answer_of, batches, publish_batch
    from postier.schemas.errors import LedgerUnavailable

    descriptor = _open(file)
    tally = {"accepted": 0, "duplicate": 0, "refused": 0}
    with Postier() as postier:
        for lines in batches(descriptor):
            answers = publish_batch(postier, lines, tenant=tenant, wait=wait)
            for (number, _), answer in zip(lines, answers, strict=True):
                shown = answer_of(number, answer)
                tally["refused" if "error" in shown else "duplicate" if shown["duplicate"] else "accepted"] += 1
                say_json(shown)
            sys.stdout.flush()
            _progress(tally)
            away = [answer for answer in answers if isinstance(answer, LedgerUnavailable)]
            if away:
                complain(f"postier: stopped after line {lines[-1][0]}: {safe(away[0])}. Publishing it again is safe.")
                raise typer.Exit(UNAVAILABLE)
    if sys.stderr.isatty():
        complain("")
    if tally["refused"]:
        raise typer.Exit(REFUSED)


def _open(file: str) -> int:
    if file == "-":
        return sys.stdin.fileno()
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        complain(f"postier: cannot read {safe(file)}: {error.strerror}")
        raise typer.Exit(USAGE) from None


def _progress(tally: dict[str, int]) -> None:
    if sys.stderr.isatty():
        words = ", ".join(f"{count} {name}" for name, count in tally.items() if count)
        print(f"\r{words}", end="", file=sys.stderr, flush=True)
