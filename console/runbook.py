"""`postier runbook`: what a class of failure means and what to do. The pages are in `console/runbook/`."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import NEGATIVE, complain, safe, say, say_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(runbook)


def pages() -> dict[str, str]:
    """Every page by its class of failure."""
    folder = resources.files("postier.console") / "runbook"
    return {
        page.name.removesuffix(".md"): page.read_text("utf-8")
        for page in sorted(folder.iterdir(), key=lambda page: page.name)
        if page.name.endswith(".md") and page.name != "README.md"
    }


def runbook(
    cause: Annotated[str | None, typer.Argument(help="A class of failure; all of them are listed without one.")] = None,
    json_output: AsJson = False,
) -> None:
    """Print the runbook's page about a class of failure. Exit 1 when there is none."""
    known = pages()
    if cause is None:
        if json_output:
            say_json({"pages": sorted(known)})
            return
        for name, text in known.items():
            say(f"{name:<24}{safe(text.splitlines()[0].lstrip('# '))}")
        return
    text = known.get(cause)
    if text is None:
        complain(f"postier: the runbook has no page {safe(cause)}; there are {', '.join(known)}")
        raise typer.Exit(NEGATIVE)
    if json_output:
        say_json({"page": cause, "text": text})
        return
    for line in text.rstrip().splitlines():
        say(line)
