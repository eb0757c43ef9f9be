"""Worker processes, real servers, real kills: nothing accepted is lost, nothing leaves twice without a doubt."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import Reply, sent
from postier.schemas.errors import LedgerUnavailable
from postier.settings.seal import Sealer
from tests.conftest import PATIENCE, until
from tests.drivers.kit import Peer, ScriptedServer, nth, polite
from tests.ledger.kit import contact_form, data_change, reset_link, somebody
from tests.workers.kit import SHORT_LEASE, House, copies, smtp

MakeHouse = Callable[..., House]
TAKEN = "250 2.0.0 Ok: queued as 4XyZ12345"


def after(seconds: float, reply: str = TAKEN) -> Callable[[Peer, str], str]:
    """A server that takes its time with a body."""

    def answer(peer: Peer, line: str) -> str:
        time.sleep(seconds)
        return reply

    return answer


class Gate:
    """Holds every answer but the first `free` ones until it is opened."""

    def __init__(self, reply: str = TAKEN, *, free: int = 0) -> None:
        self.reply = reply
        self.free = free
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, peer: Peer, line: str) -> str:
        self.free -= 1
        if self.free >= 0:
            return self.reply
        self.reached.release()
        self.opened.wait(120)
        return self.reply

    def wait_until_reached(self) -> None:
        assert self.reached.acquire(timeout=PATIENCE), "the server was never asked"


def prove(house: House) -> str:
    """Send one mail, so that the account is known to work."""
    (identity,) = house.publish(reset_link())
    house.wait_for(identity, "sent")
    return identity


def test_every_kind_leaves_and_is_sent(make_house: MakeHouse) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port))
        house.start_worker()
        ids = house.publish(reset_link(), contact_form(), data_change(somebody(), somebody()))
        assert house.wait_for_the_end(ids) == {"sent": 5}
        assert copies(server) == dict.fromkeys(ids, 1)


def test_a_killed_worker_loses_nothing_and_what_was_leased_leaves_once(make_house: MakeHouse) -> None:
    with ScriptedServer(polite(DOT=after(0.02))) as server:
        house = make_house(main=smtp(server.port, limits={"max_connections": 16}))
        doomed = house.start_worker(lease_seconds=SHORT_LEASE)
        ids = [
            *house.publish(*(reset_link() for _ in range(150))),
            *house.publish(*(data_change() for _ in range(150))),
        ]
        until(lambda: len(server.bodies) >= 30)
        at_the_kill: dict[str, str] = {}

        def holds_unstarted_mail() -> bool:
            doomed.send_signal(signal.SIGCONT)
            seen = len(server.bodies)
            until(lambda: len(server.bodies) > seen, what="that it goes on")
            doomed.send_signal(signal.SIGSTOP)
            return house.states(ids)["leased"] > 0

        until(holds_unstarted_mail)
        doomed.kill()
        doomed.wait()
        house.states(ids)  # when this is answered, what it had asked of Redis is done
        at_the_kill.update((identity, house.status(identity).state) for identity in ids)
        before = len(server.bodies)
        house.start_worker(data_dir=house.folder / "another-machine", lease_seconds=SHORT_LEASE)
        until(lambda: len(server.bodies) > before + 20)
        ended = house.wait_for_the_end(ids)
        came = copies(server)
        for identity in ids:
            state = house.status(identity).state
            if at_the_kill[identity] == "sending":
                held = house.status(identity).facts["on_unknown"] == "hold"
                assert state == ("unknown" if held else "sent")
                assert came[identity] <= (1 if held else 2)
            else:
                assert (state, came[identity]) == ("sent", 1)
        assert ended["sent"] + ended["unknown"] == 300


def test_sigterm_gives_back_what_is_unstarted_and_lets_the_rest_end(make_house: MakeHouse) -> None:
    gate = Gate(free=1)
    with ScriptedServer(polite(DOT=gate)) as server:
        house = make_house(main=smtp(server.port))
        worker = house.start_worker()
        first = prove(house)
        ids = house.publish(*(reset_link() for _ in range(60)))
        gate.wait_until_reached()
        worker.send_signal(signal.SIGTERM)
        until(lambda: set(house.states(ids)) == {"waiting", "sending"}, what="the return of all that is unstarted")
        busy = house.states(ids)["sending"]
        assert 1 <= busy <= 4
        assert worker.poll() is None
        gate.opened.set()
        assert worker.wait(PATIENCE) == 0
        assert house.states(ids) == {"waiting": 60 - busy, "sent": busy}
        assert {house.status(identity).attempt for identity in ids} == {0, 1}
        assert copies(server).total() == busy + 1
        house.start_worker()
        assert house.wait_for_the_end(ids) == {"sent": 60}
        assert copies(server) == dict.fromkeys([first, *ids], 1)


def test_sigterm_does_not_wait_for_ever_for_one_that_hangs(make_house: MakeHouse) -> None:
    gate = Gate()
    with ScriptedServer(polite(DOT=gate)) as server:
        house = make_house(main=smtp(server.port))
        worker = house.start_worker(drain_seconds=1, lease_seconds=SHORT_LEASE)
        (identity,) = house.publish(data_change())
        gate.wait_until_reached()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
        house.start_worker(lease_seconds=SHORT_LEASE)
        assert house.wait_for(identity, "unknown").cause == "worker_died"
        gate.opened.set()


def test_a_receipt_on_disk_turns_the_unknown_into_sent(make_house: MakeHouse) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port))
        (identity,) = house.publish(data_change())
        dead = house.bystander()
        _, (handed,) = dead.claim(1, 1)
        (held,) = handed.deliveries
        dead.settle([("mark", held.id, held.fence)])

        def is_given_up() -> bool:
            dead.claim(0, 1)
            return house.status(identity).state == "unknown"

        until(is_given_up)
        receipts = house.settings.data_dir / "receipts"
        receipts.mkdir(parents=True)
        proof = sent(held.id, held.fence, Reply(250, "2.0.0", "taken"), provider_id="4X", took=1000)
        (receipts / "dead.receipts").write_bytes(json.dumps(proof).encode() + b"\n" + b'["sent", "torn')
        house.start_worker()
        status = house.wait_for(identity, "sent")
        assert (status.facts["code"], status.facts["provider_id"]) == (250, "4X")
        until(lambda: not (receipts / "dead.receipts").exists())
        assert server.bodies == []


def test_a_worker_killed_after_the_250_and_before_the_record_leaves_a_proof(
    make_house: MakeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.ledger.store._SURELY_OPEN", 0.0)  # this one may be back again in less time
    with EmbeddedServer(tmp_path / "own", fsync="always") as redis:

        def end_redis(peer: Peer, line: str) -> str:
            redis.kill()
            return TAKEN

        with ScriptedServer(polite(DOT=end_redis)) as server:
            house = make_house(redis.url, main=smtp(server.port))
            worker = house.start_worker()
            (identity,) = house.publish(data_change())
            receipts = house.settings.data_dir / "receipts"
            until(lambda: any(path.stat().st_size for path in receipts.glob("*.receipts")), what="a receipt")
            worker.kill()
            worker.wait()
            redis.start()
            assert house.status(identity).state == "sending"
            house.start_worker()
            house.wait_for(identity, "sent")
            assert copies(server) == {identity: 1}


def test_redis_killed_and_restarted_in_mid_run_loses_nothing(make_house: MakeHouse, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "own", fsync="always") as redis, ScriptedServer(polite(DOT=after(0.02))) as server:
        house = make_house(redis.url, main=smtp(server.port))
        worker = house.start_worker()
        accepted: list[str] = []
        trouble: list[float] = []
        pause, killed = threading.Event(), threading.Event()

        def publish() -> None:
            for number in range(240):
                if number == 120:
                    killed.wait(2 * PATIENCE)
                event = reset_link()
                while not pause.wait(0.01):
                    started = time.monotonic()
                    try:
                        accepted.extend(house.publish(event, idempotency_key=f"n{number}"))
                        break
                    except LedgerUnavailable:
                        trouble.append(time.monotonic() - started)
                        time.sleep(0.1)

        publisher = threading.Thread(target=publish)
        publisher.start()
        until(lambda: len(server.bodies) >= 60)
        redis.kill()
        killed.set()
        until(lambda: len(trouble) >= 5, what="refused publishes")
        in_flight = 4
        before = len(server.bodies)
        redis.start()
        until(lambda: len(server.bodies) > before, what="the first mail after the outage")
        publisher.join(2 * PATIENCE)
        assert not publisher.is_alive()
        assert max(trouble) < 20
        assert len(set(accepted)) == 240
        assert house.wait_for_the_end(accepted) == {"sent": 240}
        came = copies(server)
        assert set(came) == set(accepted)
        assert came.total() - 240 <= in_flight
        assert worker.poll() is None


def test_a_stalled_worker_that_comes_back_sends_nothing_more(make_house: MakeHouse) -> None:
    gate = Gate("250 2.1.0 Ok")
    with ScriptedServer(polite(extensions=(), MAIL=gate)) as slow:
        house = make_house(main=smtp(slow.port))
        stalled = house.start_worker(lease_seconds=SHORT_LEASE)
        (identity,) = house.publish(reset_link())
        gate.wait_until_reached()
        stalled.send_signal(signal.SIGSTOP)
        gate_two = Gate("250 2.1.0 Ok")
        gate_two.opened.set()
        slow.script = polite(extensions=(), MAIL=gate_two)
        house.start_worker(lease_seconds=SHORT_LEASE)
        house.wait_for(identity, "sent")
        stalled.send_signal(signal.SIGCONT)
        gate.opened.set()
        until(lambda: slow.ended >= 1)
        assert copies(slow) == {identity: 1}
        assert house.status(identity).state == "sent"


def test_a_reset_link_superseded_while_leased_is_not_sent(make_house: MakeHouse) -> None:
    gate, person = Gate(free=1), somebody()
    with ScriptedServer(polite(DOT=gate)) as server:
        house = make_house(main=smtp(server.port, limits={"max_connections": 1}))
        house.start_worker(threads=1)
        prove(house)
        first, old = house.publish(reset_link(), reset_link(person, token="old"))
        gate.wait_until_reached()
        until(lambda: house.status(old).state == "leased")
        (new,) = house.publish(reset_link(person, token="new"))
        gate.opened.set()
        assert house.wait_for_the_end([first, old, new]) == {"sent": 2, "discarded": 1}
        assert {first, new} <= set(copies(server))
        assert old not in copies(server)
        assert house.status(old).cause == "superseded"


def test_the_message_id_stays_the_same_over_all_attempts(make_house: MakeHouse) -> None:
    with ScriptedServer(polite(DOT=nth("451 4.3.0 try later", "451 4.3.0 try later", then=TAKEN))) as server:
        house = make_house(main=smtp(server.port))
        house.start_worker()
        (identity,) = house.publish(reset_link())

        def tried(times: int) -> bool:
            return len(house.status(identity).history) >= times

        for attempt in (1, 2):
            until(partial(tried, attempt))
            house.bring_forward(identity)
        status = house.wait_for(identity, "sent")
        assert status.attempt == 3
        assert copies(server) == {identity: 3}
        assert [event["what"] for event in status.history] == ["retried", "retried", "sent"]
        assert [(event["cause"], event["code"]) for event in status.history[:2]] == [("temporary", 451)] * 2


def test_a_provider_that_asks_to_slow_down_costs_no_attempt(make_house: MakeHouse) -> None:
    with ScriptedServer(
        polite(MAIL=nth("450 4.7.1 Error: too much mail, rate limit exceeded", then="250 ok"))
    ) as server:
        house = make_house(main=smtp(server.port))
        house.start_worker()
        (identity,) = house.publish(reset_link())
        until(lambda: house.status(identity).history)
        house.bring_forward(identity)
        status = house.wait_for(identity, "sent")
        assert (status.attempt, status.facts["deferred"]) == (1, 1)
        assert [(event["what"], event.get("cause")) for event in status.history][:1] == [("deferred", "rate_limited")]


def test_a_wrong_password_parks_the_account_keeps_its_mail_and_harms_no_other(make_house: MakeHouse) -> None:
    login = {"username": "post", "password": "canary-password", "allow_plain_login": True}
    refusal = polite(extensions=("AUTH PLAIN LOGIN",), AUTH="535 5.7.8 authentication failed")
    with ScriptedServer(refusal) as strict, ScriptedServer(polite()) as kind:
        house = make_house(main=smtp(kind.port), bad=smtp(strict.port, options=login))
        house.start_worker()
        kept = house.publish(*(reset_link() for _ in range(30)), account="bad")
        flowing = house.publish(*(reset_link() for _ in range(30)))
        assert house.wait_for_the_end(flowing) == {"sent": 30}
        until(lambda: house.queries.accounts()["bad"]["state"] == "parked")
        until(lambda: house.states(kept) == {"waiting": 30})
        account = house.queries.accounts()["bad"]
        assert account["reason"] == "authentication_failed"
        assert account["until"] > time.time() + 600
        assert {house.status(identity).attempt for identity in kept} == {0}
        assert strict.verbs().count("AUTH") <= 4
        assert strict.bodies == []


@pytest.mark.parametrize("harm", ["undecodable", "unknown kind", "later version", "foreign payload"])
def test_what_cannot_be_read_is_set_aside_with_its_bytes_and_harms_no_neighbour(
    make_house: MakeHouse, harm: str
) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port))
        ids = house.publish(*(reset_link() for _ in range(11)))
        victim, neighbours = ids[5], [*ids[:5], *ids[6:]]
        record, payload = house.store.key(f"delivery:{victim}"), house.store.key(f"payload:{victim}")
        match harm:
            case "undecodable":
                house.store.redis.set(payload, b"\xff\x00 broken")
            case "unknown kind":
                house.store.redis.hset(record, "kind", "no_such_kind")
            case "later version":
                house.store.redis.hset(record, "version", 99)
            case "foreign payload":
                house.store.redis.set(payload, house.store.redis.get(house.store.key(f"payload:{ids[0]}")))
        kept = house.store.redis.get(payload)
        house.start_worker()
        assert house.wait_for_the_end(ids) == {"sent": 10, "failed": 1}
        status = house.status(victim)
        assert status.state == "failed"
        assert status.cause in ("undecodable", "unknown_kind", "unknown_version")
        assert house.store.redis.get(payload) == kept
        assert copies(server) == dict.fromkeys(neighbours, 1)
        assert {house.status(identity).attempt for identity in neighbours} == {1}
        assert "driver.failed" not in house.log()
        assert house.workers[0].poll() is None


def test_a_failing_run_tells_the_log_no_secret_link_or_address(make_house: MakeHouse) -> None:
    people = [somebody() for _ in range(4)]
    quoting = "550 5.1.1 <person@canary.example> https://canary.example/reset?token=canary-link does not exist"
    login = {"username": "canary-user@example.org", "password": "canary-password", "allow_plain_login": True}
    strict = polite(
        extensions=("AUTH PLAIN LOGIN",), AUTH="535 5.7.8 canary-password is wrong for canary-user@example.org"
    )
    with (
        ScriptedServer(polite(RCPT=quoting)) as refusing,
        ScriptedServer(strict) as locked,
        ScriptedServer(lambda peer: peer.reset()) as gone,
    ):
        house = make_house(main=smtp(refusing.port), locked=smtp(locked.port, options=login), gone=smtp(gone.port))
        house.start_worker(log_level="debug")
        ids = []
        for account in ("main", "locked", "gone"):
            events = [reset_link(person, token="canary-link") for person in people]
            ids += house.publish(*events, account=account, reply_to="canary-reply@example.org", supersedes=account)
        broken = house.publish(contact_form("canary-message"))
        house.store.redis.hset(house.store.key(f"delivery:{broken[0]}"), "version", 99)
        until(lambda: house.queries.accounts()["locked"]["state"] == "parked")
        until(lambda: "unreachable" in house.log() or "temporary" in house.log())
        until(lambda: house.states(broken)["failed"] + house.states(broken)["suppressed"] == 2)
        house.workers[0].send_signal(signal.SIGTERM)
        assert house.workers[0].wait(PATIENCE) == 0
    log = house.log()
    assert "delivery.failed" in log
    for person in people:
        assert person.address not in log
        assert person.address.partition("@")[0] not in log
    for canary in (
        "canary-link",
        "canary-password",
        "canary-user@",
        "canary-reply",
        "canary-message",
        "Zoë",
        "person@",
    ):
        assert canary not in log, canary
    for identity in ids:
        shown = str(house.status(identity).as_dict())
        assert not [word for word in ("canary-link", "canary-password", "person@", "canary-user@") if word in shown], (
            shown
        )


def test_leases_are_renewed_while_a_server_takes_longer_than_one(make_house: MakeHouse) -> None:
    gate = Gate()
    with ScriptedServer(polite(DOT=gate)) as server:
        house = make_house(main=smtp(server.port))
        lease = 4
        house.start_worker(lease_seconds=lease)
        (identity,) = house.publish(data_change())
        gate.wait_until_reached()
        house.start_worker(lease_seconds=lease)
        first = house.store.redis.zscore(house.store.key("lease"), identity)
        # Whoever says a later end than this says it behind the end of the first.
        until(lambda: house.store.redis.zscore(house.store.key("lease"), identity) > first + lease * 1e6)
        gate.opened.set()
        house.wait_for(identity, "sent")
        assert copies(server) == {identity: 1}


@pytest.mark.parametrize("name", ["k1", "k9"])
def test_mail_that_one_worker_has_no_key_for_is_left_to_another(make_house: MakeHouse, name: str) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port))
        stranger = house.start_worker(seal_keys=SecretStr(Sealer.new_key(name)), data_dir=house.folder / "stranger")
        ids = house.publish(reset_link(), contact_form())
        until(lambda: {house.status(one).cause for one in ids} == {"undecodable"}, what="the first try")
        assert house.states(ids) == {"waiting": len(ids)}
        stranger.terminate()
        assert stranger.wait(PATIENCE) == 0
        house.start_worker()
        prove(house)
        for identity in ids:
            house.bring_forward(identity)
        assert house.wait_for_the_end(ids) == {"sent": len(ids)}
        (changed,) = house.publish(reset_link(), not_before=datetime.now(UTC) + timedelta(seconds=1))
        key = house.store.key(f"payload:{changed}")
        house.store.redis.setrange(key, house.store.redis.strlen(key) - 1, b"?")
        assert house.wait_for(changed, "failed").cause == "undecodable"
