"""The README's examples do what they say when they are pasted, with the README's own accounts."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postier.ledger.accounts import configure
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.schemas.edge import admit, read_envelope
from postier.settings.config import read_registry

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def block(language: str, start: str) -> str:
    """The one block in that language that begins so."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if text.startswith(start)]
    return str(found)


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    file = tmp_path / "accounts.toml"
    file.write_text(block("toml", "default_account"), encoding="utf-8")
    return file


def test_what_is_pushed_from_another_language_passes_the_hard_edge_whenever_it_is_pasted(accounts: Path) -> None:
    command, verb, key, event = shlex.split(block("sh", "redis-cli RPUSH"))
    assert (command, verb, key) == ("redis-cli", "RPUSH", "{postier}:inbox")

    envelope = read_envelope(event)
    recipients = admit(envelope, read_registry(accounts))

    assert [one.address for one in recipients] == ["office@school.example"]
    assert json.loads(event)["id"] == envelope.id


def test_three_lines_of_python_publish(
    accounts: Path, store: Store, valkey: EmbeddedServer, namespace: str, seal_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(store, read_registry(accounts))
    for name, value in {
        "REDIS_URL": valkey.url, "NAMESPACE": namespace, "SEAL_KEYS": seal_key, "ACCOUNTS_FILE": str(accounts)
    }.items():  # fmt: skip
        monkeypatch.setenv(f"POSTIER_{name}", value)
    now = datetime.now(UTC)
    names: dict[str, Any] = {
        "now": now, "in_an_hour": now + timedelta(hours=1), "link": "https://school.example/reset?t=x", "request_id": 17
    }  # fmt: skip
    code = block("python", "from postier.client import Postier")

    exec(code, names)
    first = names["accepted"]
    exec(code, names)

    assert (len(first.deliveries), first.duplicate) == (1, False)
    assert (names["accepted"].id, names["accepted"].duplicate) == (first.id, True)
