"""Random lives of accounts over the real scripts: no limit is exceeded, nothing leaks, nothing is stranded."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from postier.ledger.claims import Claims
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import Claimed, Handed, back, free, park, slow, split, stall
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.settings.seal import Sealer
from postier.workers.conversation import _mails
from tests.governor.kit import accounts, group_change, tell
from tests.ledger.kit import LEASE, Ledger, data_change, later, move_time_by_hand, ok, reset_link
from tests.ledger.test_rates import most_within

_names = itertools.count(1)
NAMES = ("plain", "paced", "hourly", "daily", "spare")
name = st.sampled_from(NAMES)


def settings_of(per_second: int = 4, per_day: int = 12) -> Registry:
    return accounts(
        plain={"limits": {"max_connections": 3, "max_recipients": 3}},
        paced={"limits": {"per_second": per_second, "max_connections": 2}, "fallback": "spare", "overflow": "parked"},
        hourly={"limits": {"per_hour": 9, "counts": "recipients", "max_recipients": 4, "max_connections": 2}},
        daily={"limits": {"per_day": per_day, "day_resets_at": "03:30", "timezone": "Europe/Paris"},
               "fallback": "hourly", "overflow": "slow"},
        spare={"limits": {"max_connections": 2}, "fallback": "plain"},
    )  # fmt: skip


class Accounts(RuleBasedStateMachine):
    """Workers that send, defer, give back, crash and say all that may be said of an account."""

    server: EmbeddedServer
    sealer: Sealer

    @initialize()
    def begin(self) -> None:
        self.store = Store(self.server.url, namespace=f"lives{next(_names)}")
        self.ledger = Ledger(self.store, self.sealer, settings_of())
        self.worker = self.new_worker()
        self.open: list[Handed] = []
        self.left: dict[str, list[int]] = defaultdict(list)  # account: when each mail left
        self.people: dict[int, int] = defaultdict(int)  # recipients by the end of `hourly`'s window
        self.mails_by_day: dict[date, int] = defaultdict(int)
        self.gone: dict[str, int] = defaultdict(int)
        self.doubts: dict[str, int] = defaultdict(int)
        self.most_per_day = 12
        self.stepped = False
        self.place: dict[str, int] = {}  # delivery: its place in its lane
        self.furthest: dict[tuple[str, bool], int] = defaultdict(int)

    def new_worker(self) -> Claims:
        claims = self.ledger.worker(f"w{next(_names)}")
        claims.renew((), ())
        return claims

    # --- what publishers and people do

    @rule(account=name, count=st.integers(1, 6), how=st.sampled_from(["bulk", "urgent", "together"]))
    def publish(self, account: str, count: int, how: str) -> None:
        events = [group_change(count)] if how == "together" else []
        while len(events) < count and how != "together":
            events.append(reset_link() if how == "urgent" else data_change())
        for event in events:
            for identity in self.ledger.publish(event, account=account).deliveries:
                self.place[identity] = len(self.place) + 1

    @rule(account=name, verb=st.sampled_from(["pause", "resume", "resume"]))
    def person(self, account: str, verb: str) -> None:
        self.store.run("manage", (verb, account, "ops"))

    @rule(per_second=st.integers(1, 9), per_day=st.sampled_from([5, 12]), credential=st.sampled_from("abc"))
    def configure(self, per_second: int, per_day: int, credential: str) -> None:
        if per_second != 4 and self.left["paced"] and self.left["paced"][-1] > self.ledger.true_now - 2_000_000:
            return  # a window over two limits has neither
        self.most_per_day = max(self.most_per_day, per_day)
        self.ledger.registry = settings_of(per_second=4, per_day=per_day)
        tell(self.ledger, **dict.fromkeys(NAMES, credential))

    # --- what workers do

    @rule(conversations=st.integers(1, 5), size=st.integers(1, 4))
    def claim(self, conversations: int, size: int) -> None:
        wait, handed = self.worker.claim(conversations, size)
        assert 0 <= wait <= 2
        assert len(handed) <= conversations
        self.open += handed
        for conversation in handed:
            most = {"plain": 3, "hourly": 4}.get(conversation.account, 50)
            assert all(len(mail) <= most for mail in _mails(conversation.deliveries))
            for delivery in conversation.deliveries:
                if delivery.fence == 1 and conversation.account == "hourly":
                    self.in_order(conversation.account, delivery)

    def in_order(self, account: str, delivery: Claimed) -> None:
        """What is handed out for the first time stood behind all that was, unless it came by overflow."""
        if self.ledger.status(delivery.id).facts.get("via"):
            return
        place, lane = self.place[delivery.id], (account, delivery.urgent)
        assert place > self.furthest[lane], "overtaken inside its lane"
        self.furthest[lane] = place

    @rule(data=st.data(), how=st.sampled_from(["sent", "sent", "sent", "deferred", "retried", "back", "unreachable"]))
    def converse(self, data: st.DataObject, how: str) -> None:
        if not self.open:
            return
        conversation = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.end(self.worker, conversation, how)

    def end(self, worker: Claims, conversation: Handed, how: str) -> None:
        account, entries = conversation.account, []
        for mail in _mails(conversation.deliveries):
            if how == "sent":
                self.leaves(account, mail)
                entries += [ok(delivery) for delivery in mail]
            elif how == "deferred":
                entries += [later(delivery, 0, spend=False) for delivery in reversed(mail)]
            elif how == "retried":
                entries += [later(delivery, 2) for delivery in mail]
            else:
                entries += [back(delivery, refund=delivery is mail[0]) for delivery in reversed(mail)]
        verdict: Any = {"sent": "good", "unreachable": "bad"}.get(how, "none")
        worker.settle([*entries, free(conversation.name, account, verdict, "no answer")])

    def leaves(self, account: str, mail: tuple[Claimed, ...]) -> None:
        self.left[account].append(self.ledger.true_now)
        for delivery in mail:
            self.gone[delivery.id] += 1
        if account == "daily" and not self.stepped:  # days are the wall's: steps make them longer and shorter
            local = datetime.fromtimestamp(self.ledger.now / 1e6, ZoneInfo("Europe/Paris")).replace(tzinfo=None)
            self.mails_by_day[(local - timedelta(hours=3, minutes=30)).date()] += 1
        if account == "hourly":
            end = int(float(self.store.redis.hget(self.store.key("account:hourly"), "hour_end") or 0))
            self.people[end] += len(mail)

    @rule(account=name, what=st.sampled_from(["park", "needs_login", "slow", "split", "stall"]))
    def say(self, account: str, what: str) -> None:
        entry = {
            "park": park(account, state="parked", seconds=30, cause="authentication_failed", words="535"),
            "needs_login": park(account, state="needs_login", seconds=0, cause="authentication_failed", words="535"),
            "slow": slow(account, seconds=1),
            "split": split(account, recipients=4),
            "stall": stall(account),
        }[what]
        self.worker.settle([entry])

    @rule()
    def crash(self) -> None:
        for conversation in self.open:
            for delivery in conversation.deliveries:
                self.doubts[delivery.id] += 1
        self.open.clear()
        self.worker = self.new_worker()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.1, 4.0, LEASE / 3, 31.0, 3600.0, 9 * 3600.0]))
    def time_passes(self, seconds: float) -> None:
        if seconds > LEASE:
            for conversation in self.open:
                self.end(self.worker, conversation, "back")
            self.open.clear()
        self.ledger.advance(seconds)
        self.worker.renew([(item.account, item.name) for item in self.open],
                          [delivery for item in self.open for delivery in item.deliveries])  # fmt: skip
        if seconds > 3600:
            tell(self.ledger)

    @rule(seconds=st.sampled_from([3600.0, -3600.0, 86_400.0, -86_400.0]), at_once=st.booleans())
    def the_clock_steps(self, seconds: float, at_once: bool) -> None:
        self.stepped = True
        self.worker.claim(0, 1)  # as every worker does once a second
        self.ledger.step(seconds)
        if at_once:
            self.worker.claim(0, 1)
        tell(self.ledger)

    # --- what always holds

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        if not hasattr(self, "left"):
            return
        assert most_within(self.left["paced"], 1.0) <= 4
        assert max(self.people.values(), default=0) <= 9
        assert max(self.mails_by_day.values(), default=0) <= self.most_per_day
        for account, cap in {"plain": 3, "paced": 2, "hourly": 2, "spare": 2}.items():
            assert self.store.redis.zcard(self.store.key(f"sending:{account}")) <= cap
        assert max(self.gone.values(), default=0) <= 1

    def teardown(self) -> None:
        """Whatever happened: people wake what they put to sleep, time passes, and all mail ends; no slot is left."""
        if not hasattr(self, "left"):
            return
        for conversation in self.open:
            self.end(self.worker, conversation, "back")
        for account in NAMES:
            self.store.run("manage", ("resume", account, "ops"))
        last = self.new_worker()
        for step in range(600):
            _, handed = last.claim(8, 4)
            for conversation in handed:
                self.end(last, conversation, "sent")
            counts = self.ledger.queries.counts()
            if not counts["waiting"] and not counts["in_hand"]:
                break
            if not handed:
                self.ledger.advance(LEASE / 3 if step % 8 else 1800)
        assert (counts["waiting"], counts["in_hand"]) == (0, 0), "mail is stranded"
        self.no_limit_is_exceeded()
        self.ledger.advance(LEASE * 2)
        redis, key = self.store.redis, self.store.key
        assert not redis.zrangebyscore(key("troubled"), self.ledger.ledger_now, "inf")
        for account in NAMES:
            assert not redis.zrangebyscore(key(f"sending:{account}"), self.ledger.ledger_now, "inf"), "a slot is held"
            for window in ("hour_used", "day_used"):
                assert int(redis.hget(key(f"account:{account}"), window) or 0) >= 0
        redis.delete(*redis.keys(key("*")))
        self.store.close()


def test_no_life_of_accounts_breaks_a_limit_or_strands_mail(
    valkey: EmbeddedServer, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_time_by_hand(monkeypatch)
    Accounts.server, Accounts.sealer = valkey, sealer
    run_state_machine_as_test(
        Accounts,
        settings=settings(
            max_examples=int(os.environ.get("POSTIER_TEST_LIVES", "15")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
