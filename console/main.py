"""The command line: `postier COMMAND`. Each group of commands is one file; heavy imports wait for their command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

import typer

from postier.console import (
    accounts,
    audit,
    deliveries,
    demo,
    doctor,
    failed,
    inbox,
    kinds,
    metrics,
    publish,
    records,
    replay,
    runbook,
    senders,
    status,
    tenants,
    top,
    unknown,
    work,
)
from postier.console.output import EXIT_CODES, NEGATIVE, OK, UNAVAILABLE, USAGE, complain, safe

app = typer.Typer(
    name="postier",
    help="Typed events in, delivered mail out.",
    epilog=EXIT_CODES + " Settings come from POSTIER_* variables.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (publish, work, status, top, kinds, doctor, demo, records, runbook):
    module.register(app)
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(failed.app, name="failed")
app.add_typer(replay.app, name="replays")
app.add_typer(unknown.app, name="unknown")
app.add_typer(inbox.app, name="inbox")
app.add_typer(audit.app, name="audit")
app.add_typer(metrics.app, name="metrics")
app.add_typer(accounts.app, name="accounts")
app.add_typer(tenants.app, name="tenants")
app.add_typer(senders.app, name="senders")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on standard error, never a traceback."""
    from postier.schemas.errors import ConfigurationError, InvalidEvent, LedgerUnavailable

    if not all(map(_is_text, sys.argv[1:] if arguments is None else arguments)):
        complain("postier: an argument is not UTF-8 text (a file with such a name: give it as standard input)")
        return USAGE
    try:
        _command()(args=None if arguments is None else list(arguments), prog_name="postier")
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else OK if end.code is None else NEGATIVE)
    except (ConfigurationError, InvalidEvent) as error:
        complain(f"postier: {safe(error)}")
        return USAGE
    except LedgerUnavailable as error:
        complain(f"postier: {safe(error)}{_where()}")
        return UNAVAILABLE
    except KeyboardInterrupt:
        complain("postier: interrupted")
        return 130
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        from postier.settings.logs import where

        # Its words and a traceback's could hold what must not stand on a screen or in a log.
        complain(f"postier: this should not happen, please report it: {safe(where(error))}")
        return NEGATIVE
    return _flushed(OK)


@cache
def _command() -> Callable[..., object]:
    return typer.main.get_command(app)  # a twentieth of a second for all of them


def _is_text(argument: str) -> bool:
    # Octets that are no UTF-8 come as half characters, which nothing behind this line can print, store or look up.
    return argument.isascii() or not any("\ud800" <= character <= "\udfff" for character in argument)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    return code


def _reader_left() -> int:
    # `postier … | head` is no error; the interpreter must not try to write the rest at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return NEGATIVE


def _where() -> str:
    from postier.console.ledger_access import demo_hint, redis_address

    return f" ({redis_address()}). {demo_hint()}"


if __name__ == "__main__":
    sys.exit(main())
