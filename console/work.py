"""`postier work`: worker processes under a supervisor."""

from __future__ import annotations

from typing import Annotated

import typer

from postier.console.arguments import EPILOG


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(work)


def work(
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=64, help="Worker processes. [POSTIER_PROCESSES, 2]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=512, help="Threads of each. [POSTIER_THREADS, 8]")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Log in JSON whatever POSTIER_LOG_FORMAT says.")] = False,
) -> None:
    """Deliver until SIGTERM or Ctrl-C; the first signal drains, the second ends at once.

    A worker process that dies is started again.
    """
    from postier.settings.config import load_settings
    from postier.workers.supervisor import supervise

    form = "json" if json_output else None
    raise typer.Exit(supervise(load_settings(processes=processes, threads=threads, log_format=form)))
