"""A store outlives any number of refused connections."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
from redis import Redis

from postier.ledger.embedded import EmbeddedServer, free_port
from postier.ledger.store import _SHARED, Store, load_scripts, script_source, translated
from postier.ledger.wakes import Wakes
from postier.schemas.errors import LedgerUnavailable
from tests.conftest import PATIENCE, until


def test_a_store_works_again_after_hundreds_of_refused_connections(tmp_path: Path) -> None:
    port = free_port()
    store = Store(f"redis://127.0.0.1:{port}/0", timeout=PATIENCE)
    for _ in range(300):
        with pytest.raises(LedgerUnavailable):
            store.run("dataset", ("name", ""))
    with EmbeddedServer(tmp_path, port=port, fsync="no"):
        assert store.run("dataset", ("name", ""))[0] == b"name"
    store.close()


def test_a_connection_that_the_server_closed_is_replaced_unseen_once_it_lay_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.ledger.store._SURELY_OPEN", 0.0)
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        store = Store(redis.url, timeout=PATIENCE)
        store.run("dataset", ("name", ""))
        store.redis.client_kill_filter(_type="normal", skipme=True)
        assert store.run("dataset", ("name", ""))[0] == b"name"
        assert store.lost_connections == 1
        store.close()


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[tuple[EmbeddedServer, Store]]:
    """A server that begins to refuse writes, as one whose disk is full does, when `refuse` is called."""
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        store = Store(redis.url, timeout=PATIENCE)
        yield redis, store
        store.close()


def refuse(store: Store, yes: bool) -> None:
    store.redis.config_set("min-replicas-to-write", int(yes))


def test_a_write_that_is_refused_in_a_pipeline_is_an_outage_that_repeats_no_value(
    refusing: tuple[EmbeddedServer, Store],
) -> None:
    _, store = refusing
    refuse(store, True)
    for transaction in (False, True):
        with pytest.raises(LedgerUnavailable, match="refuses the write: NOREPLICAS") as told, translated():
            store.redis.pipeline(transaction=transaction).lpush("list", "Hush (a) b").execute()
        assert "Hush" not in str(told.value)


def test_a_pipeline_without_the_right_to_it_says_so_and_repeats_no_value(
    refusing: tuple[EmbeddedServer, Store],
) -> None:
    redis, store = refusing
    store.redis.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+get"])
    reader = Store(redis.url.replace("127.0.0.1", "reader:x@127.0.0.1"), timeout=PATIENCE)
    with pytest.raises(LedgerUnavailable, match=r"no right to it.*'lpush'") as told, translated():
        reader.redis.pipeline(transaction=False).lpush("list", "Hush (a) b").execute()
    assert "Hush" not in str(told.value)
    reader.close()


def test_another_error_in_a_pipeline_repeats_no_value(refusing: tuple[EmbeddedServer, Store]) -> None:
    _, store = refusing
    store.redis.set("text", "here")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE") as told, translated():
        store.redis.pipeline(transaction=False).lpush("text", "Hush (a) b").execute()
    assert "Hush" not in str(told.value)


def test_a_server_that_takes_no_more_connections_says_so(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        first, second = Store(redis.url, timeout=PATIENCE), Store(redis.url, timeout=PATIENCE)
        first.redis.config_set("maxclients", 1)
        with pytest.raises(LedgerUnavailable, match="takes no more connections: raise its maxclients"):
            second.run("dataset", ("name", ""))
        first.redis.config_set("maxclients", 10)
        assert second.run("dataset", ("name", ""))[0] == b"name"
        first.close(), second.close()


def test_who_stops_listening_while_writes_are_refused_listens_again_afterwards(
    refusing: tuple[EmbeddedServer, Store],
) -> None:
    _, store = refusing
    wakes = Wakes(store, "w1")
    assert not wakes.wait(0.01, listen=True)
    refuse(store, True)
    wakes.pass_on()
    refuse(store, False)
    store.redis.lpush(store.key("wake"), "1")
    assert wakes.wait(30.0, listen=True)
    wakes.close()


def test_a_server_that_becomes_a_replica_while_it_is_listened_to_is_away(
    refusing: tuple[EmbeddedServer, Store],
) -> None:
    _, store = refusing
    with ThreadPoolExecutor(1) as pool:

        def listen() -> None:
            with translated():
                store.redis.blmove("inbox", "taken", 20, "LEFT", "RIGHT")

        waits = pool.submit(listen)
        until(lambda: store.redis.info("clients")["blocked_clients"] == 1, what="somebody who listens")
        store.redis.replicaof("127.0.0.1", free_port())
        with pytest.raises(LedgerUnavailable, match="UNBLOCKED"):
            waits.result(PATIENCE)


def test_an_error_that_redis_has_no_name_for_is_one_of_ours_without_the_arguments(store: Store) -> None:
    store.redis.set(store.key("dataset"), "a text where the scripts expect a hash")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        store.run("dataset", ("name", ""))
    with pytest.raises(LedgerUnavailable, match="unknown command") as caught, translated():
        store.redis.execute_command("NO.SUCH", "ana@example.com", "secret")
    assert "secret" not in str(caught.value)
    assert "example.com" not in str(caught.value)


def test_every_script_is_read_before_the_disk_or_the_descriptors_may_be_gone() -> None:
    script_source.cache_clear()
    load_scripts()
    read = script_source.cache_info().misses
    parts = {part for shared in _SHARED.values() for part in shared}
    for file in (resources.files("postier.ledger") / "scripts").iterdir():
        if file.name.endswith(".lua") and file.name.removesuffix(".lua") not in parts:
            script_source(file.name.removesuffix(".lua"))
    assert script_source.cache_info().misses == read


def test_a_login_that_redis_refuses_is_called_so(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        with Redis.from_url(redis.url) as owner:
            owner.config_set("requirepass", "right")
        stranger = Store(redis.url.replace("redis://", "redis://:wrong@"), timeout=1.0)
        with pytest.raises(LedgerUnavailable, match="refuses the login") as caught:
            stranger.run("dataset", ("name", ""))
        assert "wrong" not in str(caught.value)
        stranger.close()
