"""`postier demo`: the whole of postier on this machine, with a mail server of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, safe, say, say_json

if TYPE_CHECKING:
    from postier.console.demo_run import Demo

_LATEST = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(demo)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End with the sample events; without a terminal always.")
    ] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Where everything is kept.")] = Path(".postier"),
    json_output: AsJson = False,
) -> None:
    """Run a ledger, a mail server that keeps what it takes, workers, and sample events of all kinds.

    At a terminal it goes on serving until Ctrl-C. Otherwise, and with --once, it ends with the sample events: 0 when
    each one ended as its story says, else 1. POSTIER_REDIS_URL takes the place of the embedded server.
    """
    from postier.schemas.errors import ConfigurationError

    try:
        from postier.console.demo_run import running, view_for
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "aiosmtpd":
            raise
        raise ConfigurationError("the demo needs more packages: pip install 'postier[demo]'") from None

    serve = sys.stdout.isatty() and not once and not json_output
    with running(folder) as run:
        if not json_output:
            say("The ledger, a mail server and two workers are up. Sample events:")
            sys.stdout.flush()
        run.publish()
        view = view_for(terminal=sys.stdout.isatty()) if not json_output else None
        try:
            as_told = run.tell(view or _Silent())
        finally:
            if view is not None:
                view.close()
        if run.stopping.is_set():
            complain("stopping")
            raise typer.Exit(0 if serve else 130)
        _summary(run, as_told, json_output=json_output, serve=serve)
        if serve:
            _serve(run)
            return
    if not as_told:
        raise typer.Exit(NEGATIVE)


class _Silent:
    def show(self, *_: object) -> None:
        """Nothing is shown before the end."""

    def close(self) -> None:
        """Nothing is open."""


def _summary(run: Demo, as_told: bool, *, json_output: bool, serve: bool) -> None:
    from postier.console.demo_stories import ENDINGS

    accounts = run.accounts()
    wrong = [story for story in run.stories if not story.told(accounts)]
    if json_output:
        told = [
            {
                "kind": story.event.kind, "account": story.account, "story": story.end,
                "as_told": bool(story.told(accounts)), "deliveries": [status.as_dict() for status in story.statuses],
            }
            for story in run.stories
        ]  # fmt: skip
        say_json({"ok": as_told, "stories": told, "mail": str(run.folder.mail), "sample": str(run.folder.sample)})
        return
    say()
    for story in wrong:
        states = ", ".join(sorted({status.state for status in story.statuses})) or "nothing"
        say(f"NOT AS TOLD: the {story.event.kind} of {story.account} {ENDINGS[story.end]}, but it is {states}")
        say(f"  see {safe(_shown(run.folder.log))} and: {_command()} status {story.deliveries[0]}")
    if as_told:
        count = sum(len(story.deliveries) for story in run.stories)
        say(f"Every sample event ended as its story says: {len(run.stories)} events, {count} deliveries.")
    say(f"Read the mail: {safe(_shown(run.folder.index))} in a browser, or any .eml file beside it in a mail program.")
    _what_next(run, serve=serve)


def _what_next(run: Demo, *, serve: bool) -> None:
    from postier.console.demo_stories import WRONG_PASSWORD

    command, by_end = _command(), {story.end: story for story in run.stories}
    say()
    if serve:
        say("Try next, in another terminal:")
    else:
        say(f"Try next: `{command if command.endswith('run.py') else command + ' demo'}` at a terminal serves until "
            "Ctrl-C; beside it, in another terminal:")  # fmt: skip
    if run.outside or not command.endswith("run.py"):
        say(f"  set -a; . {safe(_shown(run.folder.env))}; set +a")
    mine, server = run.folder.account_passwords / WRONG_PASSWORD, run.folder.server_passwords / WRONG_PASSWORD
    lines = [
        (f"{command} status {by_end['retried'].deliveries[0]}", "the story of one delivery"),
        (f"{command} publish {_shown(run.folder.sample)}", "events of your own; twice: the same ids, no second mail"),
        (f"{command} failed list", "what waits for a person"),
        (f"{command} failed replay {by_end['failed'].deliveries[0]}", "the filter takes the second copy"),
        (f"{command} accounts check {WRONG_PASSWORD}", "why its mail waits"),
        (f"cp {_shown(mine)} {_shown(server)}", "its password becomes right"),
        (f"{command} accounts resume {WRONG_PASSWORD}", "and its mail leaves"),
        (f"{command} doctor", "everything at a glance"),
    ]
    width = min(72, max(len(line) for line, _ in lines))
    for line, why in lines:
        say(f"  {safe(line):<{width}}  # {why}")
    if serve:
        say("\nServing. Ctrl-C stops everything.")
    sys.stdout.flush()


def _serve(run: Demo) -> None:
    """Show what ends from now on, until someone stops the demo."""
    from postier.console.output import moment
    from postier.ledger.queries import ENDS
    from postier.schemas.errors import LedgerUnavailable

    seen: set[tuple[str, str]] = {(status.id, status.state) for story in run.stories for status in story.statuses}
    seen |= {(status.id, status.state) for status in run.ledger.queries.deliveries(states=ENDS, limit=_LATEST)}
    while not run.stopping.wait(1.0):
        run.keep_up()
        try:
            latest = run.ledger.queries.deliveries(states=ENDS, limit=_LATEST)
        except LedgerUnavailable as error:
            complain(safe(error))
            continue
        for status in sorted(latest, key=lambda status: status.ended_at or 0):
            if (status.id, status.state) not in seen:
                seen.add((status.id, status.state))
                say(f"{moment(status.ended_at)}  {status.state:<10} {status.kind:<19} {status.account:<12} {status.id}")
    complain("stopping")


def _command() -> str:
    """How people call postier where the demo was started."""
    return "python3 run.py" if Path("run.py").is_file() and Path("console").is_dir() else "postier"


def _shown(path: Path) -> str:
    """A path as short as it can be written from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
