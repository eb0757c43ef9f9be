"""Every kind's JSON Schema, generated from the models: `python -m postier.schemas.json_schema [--check]`.

It describes the form postier itself writes. The edge also takes CloudEvents names and `recipients` on the envelope.
"""

from __future__ import annotations

import difflib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import create_model

from postier.schemas.envelope import Envelope
from postier.schemas.events.registry import KINDS, kind_named

FOLDER = Path(__file__).parent / "json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def _text_for(kind: str) -> str:
    event = kind_named(kind)
    # Fields of a Literal made at run time are nothing a type checker can follow.
    fields: dict[str, Any] = {"kind": (Literal[kind], ...), "data": (event, ...)}
    model = create_model(f"{event.__name__}Envelope", __base__=Envelope, __doc__=Envelope.__doc__, **fields)
    described = model.model_json_schema(mode="validation")
    described.pop("title", None)
    head = {
        "$schema": _DIALECT,
        "$id": f"urn:postier:{kind}:{event.schema_version}",
        "title": f"{kind}: {event.sample}" if event.sample else kind,
    }
    described["properties"]["schema_version"]["maximum"] = event.schema_version
    return json.dumps({**head, **described}, indent=2, ensure_ascii=False) + "\n"


def schema_for(kind: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the envelope with this kind's data. Raises InvalidEvent `unknown_kind`."""
    return json.loads(_text_for(kind))  # type: ignore[no-any-return]


def _own_kinds() -> list[str]:
    return sorted(kind for kind, event in KINDS.items() if event.__module__.startswith("postier.schemas.events."))


def main(arguments: list[str]) -> int:
    """Write the schemas of our own kinds, or with `--check` compare them: 1 and a diff when they differ."""
    wanted = {f"{kind}.json": _text_for(kind) for kind in _own_kinds()}
    present = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")}
    if "--check" not in arguments:
        for name, text in wanted.items():
            if present.get(name) != text:
                (FOLDER / name).write_text(text, "utf-8")
        for name in present.keys() - wanted.keys():
            (FOLDER / name).unlink()
        return 0
    for name in sorted(wanted.keys() | present.keys()):
        before, after = present.get(name, "").splitlines(True), wanted.get(name, "").splitlines(True)
        sys.stdout.writelines(difflib.unified_diff(before, after, f"committed/{name}", f"generated/{name}"))
    return int(wanted != present)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
