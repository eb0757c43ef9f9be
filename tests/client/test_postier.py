"""What applications import: publish, the same again, and clear answers when it cannot be."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postier.client import Accepted, IdempotencyConflict, InvalidEvent, LedgerUnavailable, Postier
from postier.ledger.accounts import configure
from postier.ledger.embedded import EmbeddedServer, free_port
from postier.ledger.store import Store
from postier.schemas.errors import ConfigurationError
from postier.settings.config import Settings
from tests.conftest import PATIENCE, until
from tests.ledger.kit import contact_form, data_change, registry, reset_link, somebody


def settings_for(url: str, namespace: str, seal_key: str, **more: float) -> Settings:
    return Settings(redis_url=url, namespace=namespace, seal_keys=seal_key, accounts_file=None, **more)  # type: ignore[arg-type]


@pytest.fixture
def settings(valkey: EmbeddedServer, namespace: str, seal_key: str) -> Settings:
    return settings_for(valkey.url, namespace, seal_key)


@pytest.fixture
def client(store: Store, settings: Settings) -> Iterator[Postier]:
    """A client of a ledger whose workers have told it the accounts."""
    configure(store, registry())
    with Postier(settings=settings) as client:
        yield client


def keys(store: Store) -> set[bytes]:
    return set(store.redis.keys(store.key("*"))) - {store.key("fresh:memory").encode()}


def test_publish_answers_with_the_id_the_deliveries_and_whether_it_was_known(client: Postier) -> None:
    event = data_change(somebody(), somebody())
    first = client.publish(event, tenant="school", idempotency_key="k")
    again = client.publish(event, tenant="school", idempotency_key="k")
    assert len(first.deliveries) == 2
    assert (first.duplicate, again) == (False, Accepted(first.id, first.deliveries, True))
    status = client.status(first.deliveries[0])
    assert status is not None
    assert (status.state, status.tenant, status.kind) == ("waiting", "school", "data_change")
    assert client.status("no-such-delivery") is None


def test_other_content_under_a_used_key_is_a_conflict(client: Postier) -> None:
    client.publish(contact_form("one"), tenant="school", idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        client.publish(contact_form("two"), tenant="school", idempotency_key="k")


@pytest.mark.parametrize(
    ("tenant", "change", "field"),
    [
        ("school", {"action_url": "https://elsewhere.example/x"}, "data.action_url"),
        ("nobody", {}, "tenant"),
        ("shop\r\nBcc: x", {}, "tenant"),
    ],
)
def test_a_refused_event_queues_nothing(
    client: Postier, store: Store, tenant: str, change: dict[str, str], field: str
) -> None:
    before = keys(store)
    with pytest.raises(InvalidEvent) as refused:
        client.publish(reset_link().model_copy(update=change), tenant=tenant)
    assert refused.value.field == field
    assert keys(store) == before


def test_an_account_of_another_tenant_is_refused(client: Postier) -> None:
    with pytest.raises(InvalidEvent) as refused:
        client.publish(reset_link(), tenant="school", account="not-ours")
    assert refused.value.field == "account"


def test_publish_many_answers_in_order_and_refuses_only_what_is_wrong(client: Postier) -> None:
    wrong = reset_link().model_copy(update={"action_url": "https://elsewhere.example/x"})
    answers = client.publish_many([reset_link(), wrong, contact_form()], tenant="school")
    assert [type(answer) for answer in answers] == [Accepted, InvalidEvent, Accepted]
    assert client.publish_many([], tenant="school") == []


def test_eight_threads_that_publish_one_event_125_times_each_make_one_delivery(client: Postier, store: Store) -> None:
    event = reset_link()
    answers: list[Accepted] = []

    def publish() -> None:
        for _ in range(125):
            answers.append(client.publish(event, tenant="school", idempotency_key="one"))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 1000
    assert len({answer.deliveries for answer in answers}) == 1
    assert sum(not answer.duplicate for answer in answers) == 1
    assert store.redis.llen(store.key("lane:main:u")) == 1


def test_a_tenant_that_is_new_in_the_ledger_is_known_at_the_next_publish(
    valkey: EmbeddedServer, store: Store, settings: Settings
) -> None:
    with Postier(settings=settings) as client:
        with pytest.raises(InvalidEvent):
            client.publish(reset_link(), tenant="school")
        configure(store, registry())
        assert client.publish(reset_link(), tenant="school").deliveries


def test_without_seal_keys_there_is_no_client(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="POSTIER_SEAL_KEYS"):
        Postier(settings=settings.model_copy(update={"seal_keys": type(settings.seal_keys)("")}))


def test_a_redis_that_is_not_there_is_told_at_once(seal_key: str) -> None:
    settings = settings_for(f"redis://127.0.0.1:{free_port()}/0", "gone", seal_key)
    started = time.monotonic()
    with Postier(settings=settings) as client, pytest.raises(LedgerUnavailable):
        client.publish(reset_link(), tenant="school")
    assert time.monotonic() - started < PATIENCE


def test_a_redis_that_stalls_is_told_in_time_and_repeating_makes_no_second_delivery(
    tmp_path: Path, namespace: str, seal_key: str
) -> None:
    with EmbeddedServer(tmp_path, fsync="always") as redis:
        store = Store(redis.url, namespace=namespace)
        configure(store, registry())
        event = reset_link()
        hasty = Postier(settings=settings_for(redis.url, namespace, seal_key, redis_timeout=0.5))
        with hasty, Postier(settings=settings_for(redis.url, namespace, seal_key)) as client:
            client.publish(reset_link(), tenant="school")
            assert redis.pid
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                took = []
                for _ in range(3):
                    started = time.monotonic()
                    with pytest.raises(LedgerUnavailable, match="TimeoutError"):
                        hasty.publish(event, tenant="school", idempotency_key="one")
                    took.append(time.monotonic() - started)
                assert min(took) < 3.5  # less than the usual four seconds, whatever the machine does meanwhile
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            first = client.publish(event, tenant="school", idempotency_key="one")
            until(lambda: store.redis.llen(store.key("lane:main:u")) >= 2)
            again = client.publish(event, tenant="school", idempotency_key="one")
            assert again == Accepted(first.id, first.deliveries, True)
            assert store.redis.llen(store.key("lane:main:u")) == 2
        store.close()


def test_a_redis_killed_after_the_answer_still_has_the_event(
    tmp_path: Path, namespace: str, seal_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.ledger.store._SURELY_OPEN", 0.0)  # this one may be back again in less time
    with EmbeddedServer(tmp_path, fsync="always") as redis:
        store = Store(redis.url, namespace=namespace)
        configure(store, registry())
        event = reset_link()
        with Postier(settings=settings_for(redis.url, namespace, seal_key)) as client:
            accepted = client.publish(event, tenant="school", idempotency_key="one")
            redis.kill()
            redis.start()
            status = client.status(accepted.deliveries[0])
            assert status is not None
            assert status.state == "waiting"
            assert client.publish(event, tenant="school", idempotency_key="one").duplicate
        store.close()
