"""`postier kinds`: what can be published."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from postier.console.arguments import EPILOG, AsJson
from postier.console.output import say, say_json, span, table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(kinds)


def kinds(
    schema: Annotated[str | None, typer.Option("--schema", help="Print the JSON Schema of this kind.")] = None,
    json_output: AsJson = False,
) -> None:
    """List the kinds of event, or print the JSON Schema of one."""
    from postier.schemas.events import KINDS
    from postier.schemas.json_schema import schema_for

    if schema is not None:
        say(json.dumps(schema_for(schema), indent=2, ensure_ascii=False))
        return
    found: list[dict[str, Any]] = [
        {
            "kind": name, "schema_version": event.schema_version, "priority": event.priority,
            "deadline_seconds": event.deadline.total_seconds(), "on_unknown": event.on_unknown, "sample": event.sample,
        }
        for name, event in sorted(KINDS.items())
    ]  # fmt: skip
    if json_output:
        say_json({"kinds": found})
        return
    table(
        ("kind", "priority", "useful for", "outcome unknown", "when"),
        [(k["kind"], k["priority"], span(k["deadline_seconds"]), k["on_unknown"], k["sample"]) for k in found],
    )
