"""`postier metrics`: what a monitoring system reads of a ledger, once and over HTTP, and when Redis is away."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from postier.console import exposition
from postier.console.exposition import METRICS, LedgerCollector
from postier.console.metrics_page import PATH, MetricsServer
from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import Handed, Kept, Reply, end, free, history, keep, park, retry, sent
from postier.ledger.manage import Management
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.settings.config import load_settings
from tests.conftest import PATIENCE, until
from tests.console.helpers import Run, end_all, publish, reset_link
from tests.console.test_inbox import HOSTILE, push

LIMITS = {"per_second": 10, "per_minute": 300, "per_hour": 100, "per_day": 50, "max_connections": 4}
Samples = dict[tuple[str, ...], float]


def read(text: str) -> Samples:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in plain_text(text)
        for sample in family.samples
    }


def told() -> Samples:
    """As the command prints them, without its start."""
    return read(generate_latest(LedgerCollector(load_settings())).decode())


def ask(port: int, path: str = PATH, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def limit(store: Store, **accounts: dict[str, Any]) -> None:
    """Accounts of the tenant `school` with these limits, the first of which is its default."""
    sender = {"address": "office@school.example"}
    configure(store, Registry.model_validate({
        "accounts": {name: {"tenant": "school", "driver": "smtp", "sender": sender, "limits": limits}
                     for name, limits in accounts.items()},
        "tenants": {"school": {"allowed_hosts": ["school.example"], "default_account": next(iter(accounts))}},
    }))  # fmt: skip


def worker(store: Store, *, threads: int = 8) -> Claims:
    """One that lives and has looked for mail."""
    made = Claims(store, "tester", lease=15, crash_limit=3, keep_sent=600, threads=threads)
    made.renew([], [])
    return made


@pytest.fixture
def page(store: Store) -> Iterator[int]:
    """The port of the page."""
    server = MetricsServer(load_settings())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE)


def test_every_metric_is_exported_by_a_ledger_that_has_everything(postier: Run, store: Store, tmp_path: Path) -> None:
    limit(store, office=LIMITS)
    worker(store).claim(0, 1)
    publish(postier, tmp_path, reset_link())
    end_all(store)

    answer = postier("metrics")
    families = {family.name: family for family in plain_text(answer.out)}

    assert (answer.code, answer.err) == (0, "")
    exported = {
        name + ("_total" if family.type == "counter" else ""): {tuple(sorted(one.labels)) for one in family.samples}
        for name, family in families.items()
    }
    assert exported == {one.name: {tuple(sorted(one.labels))} for one in METRICS}
    assert all(family.documentation.endswith(".") for family in families.values())


def test_accounts_tell_how_they_stand(postier: Run, store: Store, tmp_path: Path) -> None:
    limit(store, office=LIMITS, spare={})
    claims = worker(store)
    publish(postier, tmp_path, *(reset_link(f"sam{n}@example.org") for n in range(3)))
    held = claims.claim(1, 1)[1]
    claims.settle([keep("tester", "spare", Kept(2, 1)), keep("of the dead", "spare", Kept(5, 1))])

    found = told()

    assert found["postier_account_state", "office", "", "ready"] == 1
    assert found["postier_account_waiting", "office", "urgent"] == 2
    assert found["postier_account_waiting", "office", "bulk"] == 0
    assert found["postier_account_conversations", "office"] == len(held) == 1
    assert found["postier_account_connections_limit", "office"] == 4
    assert found["postier_account_connections_idle", "spare"] == 2  # a dead worker keeps none
    assert found["postier_account_pace_ratio", "office"] == 1
    assert 4.5 < found["postier_account_rate_limit", "office"] <= 5  # the minute's is the narrower
    assert ("postier_account_rate_limit", "spare") not in found
    assert (
        found["postier_account_quota_left", "office", "hour"],
        found["postier_account_quota_limit", "office", "hour"],
    ) == (99, 100)
    assert found["postier_account_quota_left", "office", "day"] == 49
    assert ("postier_account_quota_left", "spare", "day") not in found
    assert (found["postier_deliveries", "waiting"], found["postier_deliveries", "leased"]) == (2, 1)
    assert (found["postier_workers",], found["postier_worker_threads",]) == (1, 8)
    assert found["postier_last_look_seconds",] < PATIENCE
    assert found["postier_redis_append_only",] == 1
    assert 0 < found["postier_redis_memory_bytes",] < found["postier_redis_memory_limit_bytes",]


def test_a_parked_account_is_seen_until_its_first_mail_proves_it_well(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    claims = worker(store)
    publish(postier, tmp_path, reset_link())

    def states() -> set[tuple[str, ...]]:
        return {key[1:] for key in told() if key[0] == "postier_account_state" and key[1] == "office"}

    claims.settle([park("office", state="parked", seconds=0.05, cause="authentication_failed", words="535 no")])
    assert states() == {("office", "authentication_failed", "parked")}
    held: list[Handed] = []
    until(lambda: held.extend(claims.claim(1, 1)[1]) or held, what="the end of the pause")  # this mail is the probe
    assert states() == {("office", "", "probing")}
    claims.settle([park("office", state="parked", seconds=60, cause="words of a driver's own", words="no")])
    assert states() == {("office", "other", "parked")}
    Management(store, "ann").pause("office")
    assert states() == {("office", "", "paused")}


def test_what_waits_for_a_person_is_told_by_state_cause_and_account(postier: Run, store: Store, tmp_path: Path) -> None:
    publish(postier, tmp_path, *(reset_link(f"sam{n}@example.org") for n in range(3)))
    end_all(store)
    publish(postier, tmp_path, reset_link("kim@example.org"))
    (handed,) = worker(store).claim(1, 1)[1]
    line = history("failed", cause="made_up")
    entry = end(handed.deliveries[0], Reply(), state="unknown", cause="made_up", timeline=line)
    Claims(store, "tester", lease=15, crash_limit=3, keep_sent=600).settle([entry])

    found = told()

    waiting = {key[1:]: value for key, value in found.items() if key[0] == "postier_waiting_for_a_person"}
    assert waiting == {("office", "recipient_refused", "failed"): 3, ("office", "other", "unknown"): 1}
    assert (found["postier_deliveries", "failed"], found["postier_deliveries", "unknown"]) == (3, 1)


def test_what_was_sent_is_counted_for_good_whatever_is_forgotten_or_purged(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    publish(postier, tmp_path, *(reset_link(f"sam{n}@example.org") for n in range(3)))
    claims = Claims(store, "tester", lease=15, crash_limit=3, keep_sent=0)
    for conversation in claims.claim(1, 3)[1]:
        claims.settle(
            [sent(one.id, one.fence, Reply(250), provider_id=None, took=1) for one in conversation.deliveries]
        )
    first = told()
    assert (first["postier_sent_total",], first["postier_deliveries", "sent"]) == (3, 3)

    exported = tmp_path / "out.jsonl"
    assert postier("export", str(exported), "--state", "sent").code == 0
    exported.write_text("".join(line + "\n" for line in exported.read_text().splitlines()[:1]))
    assert postier("purge", str(exported), "--early", "--yes").code == 0
    second = told()
    assert (second["postier_sent_total",], second["postier_deliveries", "sent"]) == (3, 2)

    claims.claim(0, 1)  # retention is over at once
    third = told()
    assert (third["postier_sent_total",], third["postier_deliveries", "sent"]) == (3, 0)


def test_mail_that_may_leave_tells_how_long_it_waits_for_a_worker(postier: Run, store: Store, tmp_path: Path) -> None:
    now = store.now()
    ids = publish(postier, tmp_path, *(reset_link(f"sam{n}@example.org") for n in range(2)))
    for identity, age in zip(ids, (90, 60), strict=True):
        store.redis.hset(store.key(f"delivery:{identity}"), "accepted_at", now - age * 1_000_000)
    store.redis.zadd(store.key("due:u"), {"office": now - 80_000_000})

    found = told()
    assert found["postier_eligible_lanes", "urgent"] == 1
    assert found["postier_eligible_lanes", "bulk"] == 0
    assert 90 <= found["postier_account_oldest_seconds", "office", "urgent"] < 90 + PATIENCE
    assert 80 <= found["postier_eligible_oldest_seconds", "urgent"] < 80 + PATIENCE  # no permit before
    assert found["postier_account_oldest_seconds", "office", "bulk"] == 0

    store.redis.hset(store.key(f"delivery:{ids[0]}"), "state", "discarded")  # it stays in its lane for a while
    assert 60 <= told()["postier_account_oldest_seconds", "office", "urgent"] < 60 + PATIENCE

    store.redis.zadd(store.key("due:u"), {"office": now + 600_000_000})  # a limit holds it back
    found = told()
    assert (found["postier_eligible_lanes", "urgent"], found["postier_eligible_oldest_seconds", "urgent"]) == (0, 0)
    Management(store, "ann").pause("office")
    store.redis.zadd(store.key("due:u"), {"office": now})
    assert told()["postier_eligible_lanes", "urgent"] == 0


def test_a_retry_and_a_replay_are_as_old_as_their_turn(postier: Run, store: Store, tmp_path: Path) -> None:
    claims = worker(store)
    (identity,) = publish(postier, tmp_path, reset_link())
    long_ago = store.now() - 7200 * 1_000_000

    def oldest() -> float:
        return told()["postier_account_oldest_seconds", "office", "urgent"]

    store.redis.hset(store.key(f"delivery:{identity}"), "accepted_at", long_ago)
    assert oldest() >= 7200
    (handed,) = claims.claim(1, 1)[1]
    entry = retry(
        handed.deliveries[0], Reply(451), delay=0.01, spend=True, cause="temporary", timeline=history("retried")
    )
    claims.settle([entry, free(handed.name, "office", "good")])
    assert told()["postier_deliveries", "scheduled"] == 1
    until(lambda: claims.claim(0, 1) and told()["postier_deliveries", "waiting"] == 1, what="its next attempt")
    assert oldest() < PATIENCE
    end_all(store)
    assert postier("failed", "replay", identity, "--yes").code == 0
    assert oldest() < PATIENCE


def test_a_step_of_redis_clock_makes_nothing_old(postier: Run, store: Store, tmp_path: Path) -> None:
    worker(store)
    store.redis.set(store.key("clock"), 3600 * 1_000_000)
    store.redis.set(store.key("tick"), store.now() + 3600 * 1_000_000)
    publish(postier, tmp_path, reset_link())

    found = told()

    for name in ("postier_account_oldest_seconds", "postier_eligible_oldest_seconds"):
        assert max(value for key, value in found.items() if key[0] == name) < PATIENCE
    assert found["postier_last_look_seconds",] < PATIENCE
    assert found["postier_workers",] == 0  # its lease ended in that hour


def test_what_the_inbox_refused_and_workers_that_stand_still_are_told(store: Store) -> None:
    push(store, HOSTILE)
    store.redis.rpush(store.key("inbox"), b"{}")
    store.redis.hset(store.key("dataset"), "stopped", json.dumps({"words": "it is empty, and was not"}))

    found = told()

    assert (found["postier_inbox_refused",], found["postier_inbox_waiting",]) == (1, 1)
    assert found["postier_workers_stopped",] == 1
    assert ("postier_last_look_seconds",) not in found


def test_a_hostile_name_of_an_account_stays_one_value(postier: Run, store: Store, page: int) -> None:
    hostile = 'x",state="y"} 1\npostier_up 0\n# HELP \\ \u202e\x1b[31m é'
    store.redis.sadd(store.key("accounts"), hostile.encode(), b"\xff\xfe")
    store.redis.rpush(store.key(f"lane:{hostile}:u"), "gone")

    for text in (postier("metrics").out, ask(page)[2]):
        found = read(text)
        assert found["postier_up",] == 1
        assert found["postier_account_waiting", hostile, "urgent"] == 1
        assert found["postier_account_state", hostile, "", "unseen"] == 1
    assert {len(key) for key in found} <= {1, 2, 3, 4}


def test_programs_get_json(postier: Run, store: Store) -> None:
    (answer,) = postier("metrics", "--json").lines

    metrics = {one["name"]: one for one in answer["metrics"]}
    assert metrics["postier_up"]["samples"] == [{"labels": {}, "value": 1}]
    assert metrics["postier_sent_total"]["type"] == "counter"
    assert {"labels": {"account": "spare", "state": "ready", "reason": ""}, "value": 1} in metrics[
        "postier_account_state"
    ]["samples"]


def test_prometheus_reads_the_page(store: Store, page: int) -> None:
    status, kind, text = ask(page)
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert read(text)["postier_account_state", "office", "", "ready"] == 1
    assert {name.partition("_")[0] for name, *_ in read(text)} == {"postier"}  # nothing of this process

    status, kind, text = ask(page, Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert {family.name for family in open_metrics(text)} > {"postier_up", "postier_sent"}

    assert set(read(ask(page, f"{PATH}?name[]=postier_up")[2])) == {("postier_up",)}
    assert ask(page, "/")[0] == 404
    assert ask(page, method="POST")[0] == 501


def test_a_fault_of_ours_is_an_error_without_its_words(
    store: Store, page: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(store: Store) -> None:
        raise ValueError("canary-secret")

    monkeypatch.setattr(exposition, "measure", fail)

    status, _, text = ask(page)

    assert status == 500
    err = capfd.readouterr().err
    assert "please report it: ValueError" in err
    assert "canary" not in text + err


def test_redis_may_go_hang_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        monkeypatch.setenv("POSTIER_REDIS_URL", redis.url)
        monkeypatch.setenv("POSTIER_REDIS_TIMEOUT", "0.2")
        serving = subprocess.Popen(
            [sys.executable, "-m", "postier.console", "metrics", "serve", "--port", "0", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            assert serving.stdout is not None
            where = json.loads(serving.stdout.readline())
            assert (where["serving"], where["host"]) == (PATH, "127.0.0.1")

            def up() -> float:
                status, _, text = ask(where["port"])
                assert status == 200
                found = read(text)
                assert found["postier_up",] == 1 or {name for name, *_ in found} == {
                    "postier_up", "postier_scrape_duration_seconds",
                }  # fmt: skip
                return found["postier_up",]

            assert up() == 1
            assert redis.pid is not None
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                assert up() == 0
                assert time.monotonic() - began < PATIENCE
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            until(lambda: up() == 1, what="the ledger that hung")
            redis.kill()
            assert up() == 0
            redis.start()
            until(lambda: up() == 1, what="the ledger that was killed")
        finally:
            serving.terminate()
            rest = serving.communicate(timeout=PATIENCE)
        assert (serving.returncode, rest[0]) == (0, b"")
        hung, back, killed, back_again = rest[1].decode().splitlines()
        assert "Redis cannot be reached: TimeoutError" in hung
        assert "Redis cannot be reached: ConnectionError" in killed
        assert back == back_again == "postier: the ledger answers again"


def test_a_ledger_that_is_away_is_told_and_is_exit_4(postier: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTIER_REDIS_URL", "redis://someone:hidden@127.0.0.1:1/0")

    answer = postier("metrics")

    assert answer.code == 4
    assert set(read(answer.out)) == {("postier_up",), ("postier_scrape_duration_seconds",)}
    assert read(answer.out)["postier_up",] == 0
    assert answer.err.count("\n") == 1
    assert "hidden" not in answer.err


@pytest.mark.parametrize("command", [("metrics",), ("metrics", "serve", "--port", "0")])
def test_without_the_library_one_line_says_what_to_install(
    postier: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    answer = postier(*command)

    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "postier: metrics need one more package: pip install 'postier[metrics]'\n"


def test_a_port_that_is_taken_is_told(postier: Run, page: int) -> None:
    answer = postier("metrics", "serve", "--port", str(page))

    assert answer.code == 2
    assert re.fullmatch(rf"postier: --host 127.0.0.1 --port {page}: cannot listen there: .+\n", answer.err)


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 100])
def test_an_address_where_nobody_can_listen_is_told(postier: Run, host: str) -> None:
    answer = postier("metrics", "serve", "--port", "0", "--host", host)

    assert answer.code == 2
    assert "cannot listen there: " in answer.err
    assert answer.err.count("\n") == 1
