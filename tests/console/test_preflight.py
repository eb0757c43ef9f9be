"""Which Redis workers start on, and what it promises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postier.ledger.embedded import EmbeddedServer
from postier.ledger.health import server_facts
from postier.ledger.store import Store
from postier.schemas.errors import ConfigurationError, LedgerUnavailable
from postier.workers.preflight import ALLOW_VOLATILE, check_redis


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def configured(own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A ledger on a server whose configuration the test may change."""
    monkeypatch.delenv(ALLOW_VOLATILE, raising=False)
    store = Store(own_server.url, namespace="preflight")
    yield store
    store.redis.config_set("appendfsync", "always")
    store.redis.config_set("maxmemory-policy", "noeviction")
    store.close()


@pytest.mark.parametrize(
    ("fsync", "level", "words"),
    [
        ("always", "disk", "accepted means on disk"),
        ("everysec", "seconds", "up to 2 s of accepted events may go"),
        ("no", "system", "up to 30 s"),
    ],
)
def test_the_durability_is_told_in_words(configured: Store, fsync: str, level: str, words: str) -> None:
    configured.redis.config_set("appendfsync", fsync)

    durability = check_redis(configured)

    assert durability.level == level
    assert words in durability.words


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused_whatever_is_allowed(
    configured: Store, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setenv(ALLOW_VOLATILE, "1")
    configured.redis.config_set("maxmemory-policy", policy)

    with pytest.raises(ConfigurationError, match=f"maxmemory-policy {policy}"):
        check_redis(configured)


def test_a_server_that_forgets_is_refused_unless_that_is_all_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW_VOLATILE, raising=False)
    with EmbeddedServer(tmp_path) as server:
        store = Store(server.url, namespace="preflight")
        store.redis.config_set("appendonly", "no")

        with pytest.raises(ConfigurationError, match="appendonly yes"):
            check_redis(store)

        monkeypatch.setenv(ALLOW_VOLATILE, "1")
        assert check_redis(store).level == "memory"
        store.close()


def test_a_server_that_forbids_config_and_info_is_accepted_with_a_doubt(
    configured: Store, own_server: EmbeddedServer, capsys: Any
) -> None:
    configured.redis.execute_command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "+@all", "-config", "-info")
    limited = Store(own_server.url.replace("redis://", "redis://worker:pw@"), namespace="preflight")

    facts = server_facts(limited)

    assert (facts.policy, facts.append_fsync, facts.append_only) == (None, None, None)
    assert check_redis(limited).level == "unknown"
    limited.close()
    configured.redis.execute_command("ACL", "DELUSER", "worker")


def test_a_server_that_is_away_is_no_wrong_set_up(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable):
        check_redis(Store("redis://127.0.0.1:1/0"))
