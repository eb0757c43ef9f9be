"""Random lives of deliveries against a small model: workers crash, stall, repeat themselves and return at any step."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from postier.ledger.claims import Claims
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import Claimed, Entry, Handed, back, mark
from postier.ledger.manage import Management
from postier.ledger.store import Store
from postier.settings.seal import Sealer
from tests.ledger.kit import (
    LEASE,
    Ledger,
    all_of,
    contact_form,
    data_change,
    finish,
    freed,
    later,
    move_time_by_hand,
    ok,
    over,
    registry,
    reset_link,
    somebody,
)

_names = itertools.count(1)
ENDS = ("sent", "failed", "expired", "unknown", "discarded", "suppressed")
CAPS = {"free": 3, "slow": 2}
PER_SECOND = 5
people = [somebody() for _ in range(3)]


class Worker:
    """A worker as the ledger sees it, and what it believes to hold."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.conversations: list[Handed] = []
        self.held: dict[str, Claimed] = {}
        self.handing_over: set[str] = set()
        self.last: list[Entry] = []


class Lives(RuleBasedStateMachine):
    """The model knows of each delivery the highest fence, whether that attempt was handed over, and proofs of it."""

    server: EmbeddedServer
    sealer: Sealer

    @initialize()
    def begin(self) -> None:
        self.store = Store(self.server.url, namespace=f"model{next(_names)}")
        limits: dict[str, dict[str, Any]] = {"free": {"max_connections": CAPS["free"]}}
        limits["slow"] = {"max_connections": CAPS["slow"], "per_second": PER_SECOND}
        self.ledger = Ledger(self.store, self.sealer, registry(**limits))
        self.workers = [self.new_worker() for _ in range(2)]
        self.gone: list[Worker] = []
        self.fences: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.sent: Counter[str] = Counter()  # bodies on the wire
        self.excused: Counter[str] = Counter()  # attempts whose outcome nobody could know
        self.slow_sends: list[int] = []

    def new_worker(self) -> Worker:
        return Worker(self.ledger.worker(f"w{next(_names)}"))

    # --- what happens

    @rule(kind=st.sampled_from(["reset", "form", "change"]), account=st.sampled_from(["free", "slow"]),
          person=st.sampled_from(people), count=st.integers(1, 5))  # fmt: skip
    def publish(self, kind: str, account: str, person: Any, count: int) -> None:
        for _ in range(count):
            event = reset_link(person) if kind == "reset" else contact_form() if kind == "form" else data_change()
            for identity in self.ledger.publish(event, account=account).deliveries:
                self.fences[identity] = 0

    @rule(who=st.integers(0, 1), conversations=st.integers(0, 4), size=st.integers(1, 4))
    def claim(self, who: int, conversations: int, size: int) -> None:
        worker = self.workers[who]
        wait, handed = worker.claims.claim(conversations, size)
        assert 0 <= wait <= 2
        assert len(handed) <= conversations
        for conversation in handed:
            assert 1 <= len(conversation.deliveries) <= size
            worker.conversations.append(conversation)
            for delivery in conversation.deliveries:
                assert delivery.fence > self.fences[delivery.id], "a fence was given twice"
                assert delivery.id not in self.ended, "an ended delivery was handed out"
                self.fences[delivery.id] = delivery.fence
                worker.held[delivery.id] = delivery
                if conversation.account == "slow":
                    self.slow_sends.append(self.ledger.true_now)

    def some(self, data: st.DataObject, worker: Worker, *, handed_over: bool) -> Claimed | None:
        ids = sorted(identity for identity in worker.held if (identity in worker.handing_over) == handed_over)
        return worker.held[data.draw(st.sampled_from(ids))] if ids else None

    def settle(self, worker: Worker, *entries: Entry) -> list[int]:
        worker.last = list(entries)
        answers = worker.claims.settle(entries)
        for entry, answer in zip(entries, answers, strict=True):
            assert answer == 0 or entry[2] == self.fences[str(entry[1])], "a stale write was taken"
        return answers

    @rule(who=st.integers(0, 1), data=st.data())
    def hand_over(self, who: int, data: st.DataObject) -> None:
        worker = self.workers[who]
        delivery = self.some(data, worker, handed_over=False)
        if delivery is None:
            return
        (answer,) = self.settle(worker, mark(delivery))
        if answer == 1:
            assert delivery.fence == self.fences[delivery.id], "a stale worker may hand over"
            worker.handing_over.add(delivery.id)
            self.sent[delivery.id] += 1
        elif answer == 2:
            end = over(delivery, "discarded", "superseded")
            worker.claims.settle([end])
            del worker.held[delivery.id]
        else:
            del worker.held[delivery.id]

    @rule(who=st.integers(0, 1), data=st.data(),
          how=st.sampled_from(["sent", "sent", "sent", "retry", "deferred", "failed", "unknown"]))  # fmt: skip
    def outcome(self, who: int, data: st.DataObject, how: str) -> None:
        worker = self.workers[who]
        delivery = self.some(data, worker, handed_over=True)
        if delivery is None:
            return
        entry = {
            "sent": lambda: ok(delivery),
            "retry": lambda: later(delivery, 2.0),
            "deferred": lambda: later(delivery, 1.0, spend=False),
            "failed": lambda: over(delivery),
            "unknown": lambda: over(delivery, "unknown", "outcome_unknown"),
        }[how]()
        if how in ("retry", "deferred", "failed"):
            self.sent[delivery.id] -= 1  # the other side refused it: nothing was taken
        self.settle(worker, entry)
        self.forget(worker, delivery)

    def forget(self, worker: Worker, delivery: Claimed) -> None:
        del worker.held[delivery.id]
        worker.handing_over.discard(delivery.id)

    @rule(who=st.integers(0, 1), data=st.data())
    def give_back(self, who: int, data: st.DataObject) -> None:
        worker = self.workers[who]
        delivery = self.some(data, worker, handed_over=False)
        if delivery is not None:
            self.settle(worker, back(delivery))
            del worker.held[delivery.id]

    @rule(who=st.integers(0, 1))
    def end_conversations(self, who: int) -> None:
        worker = self.workers[who]
        for conversation in list(worker.conversations):
            if not any(delivery.id in worker.held for delivery in conversation.deliveries):
                worker.claims.settle([freed(conversation)])
                worker.conversations.remove(conversation)

    @rule(who=st.integers(0, 1))
    def say_it_again(self, who: int) -> None:
        before = self.view()
        self.workers[who].claims.settle(self.workers[who].last)
        assert self.view() == before, "a repeated entry changed the ledger"

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        worker = self.workers[who]
        for identity in worker.handing_over:
            self.excused[identity] += 1
        self.gone.append(worker)
        self.workers[who] = self.new_worker()

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), how=st.sampled_from(["mark", "sent", "retry", "failed", "back"]))
    def speak_from_the_grave(self, data: st.DataObject, how: str) -> None:
        """A worker that stalled longer than its lease, or the receipts it left behind."""
        worker = data.draw(st.sampled_from(self.gone))
        if not worker.held:
            return
        delivery = worker.held[data.draw(st.sampled_from(sorted(worker.held)))]
        handed_over = delivery.id in worker.handing_over
        if how == "sent" and not handed_over:
            return
        fresh = delivery.fence == self.fences[delivery.id]
        entry = {"mark": mark, "sent": ok, "retry": later, "failed": over, "back": back}[how](delivery)
        before = self.view()
        (answer,) = worker.claims.settle([entry])
        if not fresh:
            assert answer == 0, "a stale write was taken"
            assert self.view() == before, "a stale write changed the ledger"
            return
        if how == "mark" and answer == 1 and not handed_over:
            self.sent[delivery.id] += 1
            self.excused[delivery.id] += 1
            worker.handing_over.add(delivery.id)
        if how in ("retry", "failed") and answer == 1 and handed_over and self.view() != before:
            self.sent[delivery.id] -= 1
        if how == "sent" and answer == 1:
            self.ended.pop(delivery.id, None)

    @rule(who=st.integers(0, 1))
    def renews(self, who: int) -> None:
        self.renew(who)

    def renew(self, who: int) -> None:
        worker = self.workers[who]
        slots = [(item.account, item.name) for item in worker.conversations]
        for identity in worker.claims.renew(slots, worker.held.values()):
            if identity not in worker.handing_over:
                del worker.held[identity]

    @rule(seconds=st.sampled_from([0.05, 0.4, 1.1, 3.0, LEASE / 3, LEASE * 1.1]))
    def time_passes(self, seconds: float) -> None:
        self.ledger.advance(seconds)
        for worker in self.workers:
            if seconds > LEASE:
                for identity in worker.handing_over:
                    self.excused[identity] += 1  # nobody renewed: its lease may be taken

    @rule(seconds=st.sampled_from([3600, -3600, 90, -90, 86_400, -86_400]), first=st.sampled_from(["renew", "claim"]))
    def the_clock_steps(self, seconds: int, first: str) -> None:
        """No time passes, so no lease runs out and nobody's knowledge is in doubt."""
        for worker in self.workers:
            worker.claims.claim(0, 1)  # as each does once a second
        self.ledger.step(seconds)
        if first == "renew":
            self.renew(0)
        self.workers[1].claims.claim(0, 1)

    @rule(alive=st.sampled_from([None, 0, 1]))
    def leases_run_out(self, alive: int | None) -> None:
        """Time passes in which somebody keeps house, and only one worker, or none, renews what it holds."""
        for number, worker in enumerate(self.workers):
            if number != alive:
                for identity in worker.handing_over:
                    self.excused[identity] += 1
        housekeeper = self.ledger.worker("housekeeper")
        for _ in range(5):
            self.ledger.advance(LEASE / 3)
            if alive is not None:
                self.renew(alive)
            housekeeper.claim(0, 1)
        if alive is not None:
            self.claim(alive, 4, 4)

    @rule()
    def a_person_hurries(self) -> None:
        management = Management(self.store, "anna")
        waits = [*management.between_attempts()]
        assert set(dict(management.retry(waits)).values()) <= {"done"}

    # --- what always holds

    def view(self) -> list[Any]:
        redis, key = self.store.redis, self.store.key
        pipe = redis.pipeline(transaction=False)
        for identity in self.fences:
            pipe.hgetall(key(f"delivery:{identity}"))
        for name in ("lease", "scheduled", "deadline", *(f"ended:{state}" for state in ENDS)):
            pipe.zrange(key(name), 0, -1)
        for account in CAPS:
            pipe.zrange(key(f"sending:{account}"), 0, -1, withscores=True)
            pipe.lrange(key(f"lane:{account}:u"), 0, -1)
            pipe.lrange(key(f"lane:{account}:b"), 0, -1)
        return list(pipe.execute())

    @invariant()
    def every_delivery_is_in_one_place(self) -> None:
        if not hasattr(self, "fences"):
            return
        view = self.view()
        count = len(self.fences)
        lease, scheduled, deadline, *ended = ({item.decode() for item in view[count + n]} for n in range(9))
        lanes = Counter(item.decode() for n in (10, 11, 13, 14) for item in view[count + n])
        for number, identity in enumerate(self.fences):
            record = {field.decode(): value.decode() for field, value in view[number].items()}
            state = record["state"]
            assert int(record["fence"]) == self.fences[identity]
            assert [name for name, ids in zip(ENDS, ended, strict=True) if identity in ids] == (
                [state] if state in ENDS else []
            )
            assert (identity in lease) == (state in ("leased", "sending")), (state, "lease")
            assert (identity in deadline) == (state not in ENDS), (state, "deadline")
            if state == "waiting":
                assert (identity in scheduled) != (lanes[identity] > 0), "stranded, or in two places"
            else:
                assert identity not in scheduled
            known = self.ended.get(identity)
            assert known in (None, state) or (state == "sent" and known in ("unknown", "failed", "expired"))
            if state in ENDS:
                self.ended[identity] = state
            assert int(record.get("crashes", 0)) <= 3
            assert self.sent[identity] <= 1 + self.excused[identity], "an extra copy without a doubt"

    @invariant()
    def caps_and_rates_hold(self) -> None:
        if not hasattr(self, "fences"):
            return
        for account, cap in CAPS.items():
            assert self.store.redis.zcard(self.store.key(f"sending:{account}")) <= cap
        recent = [at for at in self.slow_sends if at > self.ledger.true_now - 1_000_000]
        given_back = 5  # at most a grant's worth may go round again
        assert len(recent) <= PER_SECOND + given_back

    def teardown(self) -> None:
        """Whatever happened: with one living worker everything ends, and no slot is left behind."""
        if not hasattr(self, "fences"):
            return
        last = self.new_worker().claims
        for _ in range(400):
            handed = last.claim(4, 4)[1]
            for identity in (delivery.id for delivery in all_of(handed)):
                self.sent[identity] += 1
            for conversation in handed:
                answers = last.settle([mark(delivery) for delivery in conversation.deliveries])
                superseded = [d for d, answer in zip(conversation.deliveries, answers, strict=True) if answer == 2]
                last.settle([over(delivery, "discarded", "superseded") for delivery in superseded])
            finish(last, handed)
            counts = self.ledger.queries.counts()
            if not handed and not counts["waiting"] and not counts["in_hand"]:
                break
            self.ledger.advance(0.5)
        states = Counter(self.ledger.state(identity) for identity in self.fences)
        assert set(states) <= set(ENDS), states
        self.ledger.advance(LEASE * 2)
        for account in CAPS:
            left = self.store.redis.zrangebyscore(self.store.key(f"sending:{account}"), self.ledger.ledger_now, "inf")
            assert not left, "a slot is held for ever"
        self.store.redis.delete(*self.store.redis.keys(self.store.key("*")))
        self.store.close()


def test_no_life_of_a_delivery_breaks_a_promise(
    valkey: EmbeddedServer, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_time_by_hand(monkeypatch)
    Lives.server, Lives.sealer = valkey, sealer
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=int(os.environ.get("POSTIER_TEST_LIVES", "30")),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
