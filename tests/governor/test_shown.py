"""`postier accounts show`: how an account stands, for people and for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postier.console.main import main
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import park, slow
from postier.settings.seal import Sealer
from tests.ledger.kit import data_change
from tests.workers.kit import House, smtp

Show = Callable[..., str]


@pytest.fixture
def house(
    valkey: EmbeddedServer, namespace: str, seal_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    account = smtp(9, limits={"per_day": 10, "per_hour": 5}, fallback="spare", overflow="never")
    made = House(valkey.url, namespace, seal_key, tmp_path, {"main": account, "spare": smtp(9)})
    for name in list(os.environ):
        if name.startswith("POSTIER_"):
            monkeypatch.delenv(name)
    for name, value in {
        "REDIS_URL": valkey.url, "NAMESPACE": namespace, "SEAL_KEYS": Sealer.new_key(),
        "ACCOUNTS_FILE": str(made.accounts_file), "DATA_DIR": str(tmp_path / "data"),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"POSTIER_{name}", value)
    yield made
    made.close()


def test_what_is_left_how_fast_it_goes_and_why_it_stands_are_shown(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = house.bystander()
    house.publish(*(data_change() for _ in range(3)))
    worker.renew((), ())
    assert sum(len(conversation.deliveries) for conversation in worker.claim(8, 1)[1]) >= 1
    worker.settle([slow("main", seconds=30)])
    assert main(["accounts", "show", "main", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["state"] == "slowed"
    assert 0.5 <= shown["pace"]["factor"] < 0.6
    assert shown["pace"]["held_until"] > shown["quota"]["day"]["frees_at"] - 86_400
    assert shown["quota"]["hour"]["left"] < 5
    assert (shown["fallback"], shown["overflow"]) == ("spare", "never")
    worker.settle([park("main", state="parked", seconds=60, cause="quota_exhausted", words="550 5.4.5 spent")])
    assert main(["accounts", "show", "main"]) == 0
    text = capsys.readouterr().out
    for word in ("parked", "quota_exhausted", "550 5.4.5 spent", "quota.day.left", "quota.day.frees_at", "pace.floor"):
        assert word in text
    assert main(["accounts", "resume", "main"]) == 0
    capsys.readouterr()
    assert main(["accounts", "show", "main", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "ready"
