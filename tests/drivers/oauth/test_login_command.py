"""`postier accounts login`: a person's consent reaches the workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from postier.console.main import app
from postier.drivers.base import Ports
from postier.drivers.testing import sample_email
from postier.ledger.accounts import configure
from postier.ledger.entries import park
from postier.ledger.store import Store
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.account import Registry
from postier.settings.seal import Sealer
from tests.drivers.oauth.services import Microsoft
from tests.drivers.oauth.test_device_login import DELEGATED, PENDING, code_reply, person


@pytest.fixture
def accounts(
    microsoft: Microsoft, store: Store, seal_key: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    settings = json.dumps(microsoft.settings(**DELEGATED))
    registry = {
        "default_account": "mailbox",
        "accounts": {"mailbox": {"driver": "microsoft", "sender": {"address": "office@contoso.example"}}},
    }
    file = tmp_path / "accounts.toml"
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in json.loads(settings).items())
    file.write_text(
        'default_account = "mailbox"\n[accounts.mailbox]\ndriver = "microsoft"\n'
        f'sender = {{ address = "office@contoso.example" }}\noptions = {{ {pairs} }}\n'
    )
    monkeypatch.setenv("POSTIER_REDIS_URL", store.url)
    monkeypatch.setenv("POSTIER_NAMESPACE", namespace)
    monkeypatch.setenv("POSTIER_SEAL_KEYS", seal_key)
    monkeypatch.setenv("POSTIER_ACCOUNTS_FILE", str(file))
    return Registry.model_validate(registry)


def test_a_consent_wakes_the_account_and_its_workers_send(
    microsoft: Microsoft, accounts: Registry, store: Store, sealer: Sealer
) -> None:
    configure(store, accounts)
    waits = park("mailbox", state="needs_login", seconds=0, cause="authentication_failed", words="AADSTS65001")
    store.run("settle", (1, *waits))
    person(microsoft)
    microsoft.entra.devices = [code_reply(microsoft, interval=1)]
    microsoft.entra.answers = [PENDING]

    answer = CliRunner().invoke(app, ["accounts", "login", "mailbox"])

    assert answer.exit_code == 0, answer.output
    assert "enter the code ABCD-EFGH" in answer.output
    assert "canary" not in answer.output
    assert store.redis.hget(store.key("account:mailbox"), "state") == b"ready"
    tokens = SealedTokenStore(store, sealer, owner="instance")
    microsoft.driver(ports=Ports(token_store=tokens), **DELEGATED).send(sample_email())
    assert microsoft.graph.tokens == ["canary-token-2"]


def test_an_account_without_a_persons_login_says_so(accounts: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = CliRunner().invoke(app, ["accounts", "login", "nobody"])
    assert answer.exit_code != 0
