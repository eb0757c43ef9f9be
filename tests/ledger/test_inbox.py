"""Publishing from any language: one RPUSH, and what the hard edge refuses is kept with its bytes."""

from __future__ import annotations

import json

import pytest

from postier.ledger.accounts import configure
from postier.ledger.inbox import Inbox, Refused, RefusedEvents, inbox_counts
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
    newest, oldest = RefusedEvents(store, sealer).find()
    assert newest.raw == hostile
    assert newest.error["field"].startswith("data.recipient")
    assert oldest.raw == b"\xff not json"
    assert b"ana@example" not in b"".join(store.redis.lrange(store.key("inbox:refused"), 0, -1))


def test_what_a_dead_worker_had_taken_is_published_by_the_next(store: Store, sealer: Sealer) -> None:
    store.redis.rpush(store.key("inbox:taken"), envelope(3))
    assert an_inbox(store, sealer).take(REGISTRY, wait=0.05) == (1, 0)
    assert store.redis.exists(store.key("inbox:taken")) == 0


def test_what_was_refused_goes_back_into_the_inbox_once_or_is_discarded(store: Store, sealer: Sealer) -> None:
    inbox, refused = an_inbox(store, sealer), RefusedEvents(store, sealer)
    store.redis.rpush(store.key("inbox"), b"no", envelope(1).replace(b"app.example.org", b"shop.example.org"))
    assert inbox.take(REGISTRY, wait=1.0) == (0, 2)
    shop, broken = refused.find()
    assert (shop.named("id"), shop.named("kind"), shop.named("tenant")) == ("e-1", "reset_link", "school")
    assert (broken.named("id"), broken.named("kind")) == ("", "")

    mended = REGISTRY.model_copy(deep=True)
    mended.tenants["school"] = mended.tenants["school"].model_copy(update={"allowed_hosts": ("shop.example.org",)})
    configure(store, mended)
    assert refused.retry([shop.id]) == {shop.id: "done"}
    assert refused.retry([shop.id]) == {shop.id: "unknown"}
    assert inbox_counts(store) == (1, 1)
    assert inbox.take(mended, wait=1.0) == (1, 0)
    assert len(Queries(store).deliveries_of("school", "e-1")) == 1

    assert refused.discard([broken.id, "0123456789ab"]) == {broken.id: "done", "0123456789ab": "unknown"}
    assert inbox_counts(store) == (0, 0)


def test_what_another_key_sealed_stays_until_that_key_is_back(store: Store, sealer: Sealer) -> None:
    store.redis.rpush(store.key("inbox"), b"no")
    assert an_inbox(store, sealer).take(REGISTRY, wait=1.0) == (0, 1)
    stranger = RefusedEvents(store, Sealer.from_text(Sealer.new_key()))
    (one,) = stranger.find()
    assert (one.raw, one.error["code"]) == (b"", RefusedEvents(store, sealer).find()[0].error["code"])
    assert stranger.retry([one.id]) == {one.id: "sealed"}
    assert inbox_counts(store) == (0, 1)
    assert RefusedEvents(store, sealer).retry([one.id]) == {one.id: "done"}


@pytest.mark.parametrize("raw", [b"[]", b"7", b'{"kind": 7}', b'{"kind": "\\u001b[31m"}', b"[" * 100_000])
def test_what_a_refused_event_calls_itself_is_shown_only_where_it_is_a_plain_word(raw: bytes) -> None:
    assert Refused("0", 0, {}, raw).named("kind") == ""
