"""`postier failed replay ID --edit`: a corrected event takes the place of one that failed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from postier.console.output import NEGATIVE, USAGE, complain, safe, say, say_json

if TYPE_CHECKING:
    from postier.console.ledger_access import Ledger

_LARGEST = 1_000_000


def correct(
    opened: Ledger, ids: Sequence[str], edit: str, *, account: str | None, who: str, dry_run: bool, json_output: bool
) -> None:
    """Publish the corrected event of one delivery; the old one stays, given up, with a link to the new one."""
    from postier.ledger.manage import Management
    from postier.settings.seal import Unsealable

    if len(ids) != 1:
        raise typer.BadParameter("give the id of one delivery", param_hint="--edit")
    status = opened.queries.status(ids[0])
    if status is None:
        complain(f"postier: {safe(ids[0])} is not known")
        raise typer.Exit(NEGATIVE)
    sealer, manage = opened.settings.sealer(), Management(opened.store, who)
    try:
        payload = manage.content(status, sealer)
    except (Unsealable, ValueError) as error:
        complain(f"postier: the content does not open: {safe(error)}")
        raise typer.Exit(NEGATIVE) from None
    if payload is None:
        complain(f"postier: {safe(status.id)} has lost its content")
        raise typer.Exit(NEGATIVE)
    data = _edited(payload.data) if edit == "-" else _read(edit)
    if dry_run:
        say_json({"dry_run": True, "corrects": status.id, "bytes": len(data)})
        return
    answer = manage.correct(
        status, data, payload=payload, registry=opened.registry(), sealer=sealer, account=account
    )  # fmt: skip
    shown = {"id": answer.deliveries[0], "corrects": status.id, "event": answer.id, "duplicate": answer.duplicate}
    if json_output:
        say_json(shown)
    else:
        say(f"{shown['id']} takes the place of {safe(status.id)}")


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        complain(f"postier: cannot read {safe(name)}: {error.strerror}")
        raise typer.Exit(USAGE) from None


def _edited(data: bytes) -> bytes:
    """What a person made of it in $EDITOR. The file is theirs alone and gone afterwards."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor or not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal or no $EDITOR: give a file", param_hint="--edit")
    with tempfile.TemporaryDirectory(prefix="postier-") as folder:
        path = Path(folder) / "event.json"
        path.touch(0o600)
        path.write_text(json.dumps(json.loads(data), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if subprocess.run([*shlex.split(editor), str(path)], check=False).returncode != 0:
            complain("postier: the editor failed: nothing done")
            raise typer.Exit(NEGATIVE)
        changed = path.read_bytes()
    if json.loads(data) == json.loads(changed or b"{}"):
        complain("postier: nothing was changed: nothing done")
        raise typer.Exit(NEGATIVE)
    return changed
