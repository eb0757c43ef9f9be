"""Publishing from any language: one RPUSH, and what the hard edge refuses is kept with its bytes."""

from __future__ import annotations

import json

from postier.ledger.accounts import configure
from postier.ledger.inbox import Inbox
from postier.ledger.publish import Publisher
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.settings.seal import Sealer

REGISTRY = Registry.model_validate(
    {
        "default_account": "main",
        "accounts": {"main": {"driver": "null", "sender": {"address": "noreply@example.org"}}},
        "tenants": {"school": {"allowed_hosts": ["app.example.org"]}},
    }
)


def envelope(number: int) -> bytes:
    return json.dumps(
        {
            "id": f"e-{number}",
            "kind": "reset_link",
            "tenant": "school",
            "data": {
                "recipient": "ana@example.com",
                "action_url": f"https://app.example.org/reset/{number}",
                "requested_at": "2099-01-01T10:00:00Z",
                "expires_at": "2099-01-01T11:00:00Z",
            },
        }
    ).encode()


def an_inbox(store: Store, sealer: Sealer) -> Inbox:
    configure(store, REGISTRY)
    return Inbox(store, sealer, Publisher(store, sealer))


def test_an_envelope_pushed_by_any_client_is_accepted_once(store: Store, sealer: Sealer) -> None:
    inbox = an_inbox(store, sealer)
    store.redis.rpush(store.key("inbox"), envelope(1), envelope(1))
    assert inbox.take(REGISTRY, wait=1.0) == (2, 0)
    assert len(Queries(store).deliveries_of("school", "e-1")) == 1
    assert Queries(store).counts()["waiting"] == 1
    assert store.redis.exists(store.key("inbox"), store.key("inbox:taken")) == 0


def test_a_refused_envelope_is_kept_sealed_with_its_reason_and_harms_no_neighbour(store: Store, sealer: Sealer) -> None:
    inbox = an_inbox(store, sealer)
    hostile = b'{"kind": "reset_link", "tenant": "school", "data": {"recipient": "ana@example.com\\nBcc: q@z.example"}}'
    store.redis.rpush(store.key("inbox"), b"\xff not json", hostile, envelope(2))
    assert inbox.take(REGISTRY, wait=1.0) == (1, 2)
    newest, oldest = inbox.refused()
    assert newest.raw == hostile
    assert newest.error["field"].startswith("data.recipient")
    assert oldest.raw == b"\xff not json"
    assert b"ana@example" not in b"".join(store.redis.lrange(store.key("inbox:refused"), 0, -1))


def test_what_a_dead_worker_had_taken_is_published_by_the_next(store: Store, sealer: Sealer) -> None:
    store.redis.rpush(store.key("inbox:taken"), envelope(3))
    assert an_inbox(store, sealer).take(REGISTRY, wait=0.05) == (1, 0)
    assert store.redis.exists(store.key("inbox:taken")) == 0
