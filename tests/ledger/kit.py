"""A ledger with accounts, events to publish into it, and a clock that is moved by hand."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postier.ledger import store as store_module
from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Entry, Handed, Reply, end, free, history, park, retry, sent
from postier.ledger.publish import Accepted, Admitted, Publisher
from postier.ledger.queries import Queries, Status
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.schemas.edge import admit, wrap
from postier.schemas.events import ContactForm, DataChange, Entity, Event, Recipient, ResetLink, Visitor
from postier.schemas.events.data_change import Change
from postier.settings.seal import Sealer

TENANTS = {
    "school": {
        "allowed_hosts": ["school.example"],
        "forms": {"contact": {"recipients": ["office@school.example", "head@school.example"]}},
    },
    "shop": {"allowed_hosts": ["school.example"]},
}
LEASE = 10.0
CRASHES = 3
_people = itertools.count(1)


def registry(**limits: dict[str, Any]) -> Registry:
    """One account per argument with these limits; the first is the default."""
    accounts = {
        name: {"driver": "smtp", "sender": {"address": f"post@{name}.example"}, "limits": given}
        for name, given in (limits or {"main": {}}).items()
    }
    return Registry.model_validate({"default_account": next(iter(accounts)), "accounts": accounts, "tenants": TENANTS})


def somebody() -> Recipient:
    return Recipient(address=f"person{next(_people)}@example.org", name="Zoë Quist")


def reset_link(to: Recipient | None = None, *, token: str = "abc", lasts: timedelta = timedelta(hours=1)) -> ResetLink:
    now = datetime.now(UTC)
    return ResetLink(
        recipient=to or somebody(),
        action_url=f"https://school.example/reset?token={token}",
        requested_at=now,
        expires_at=now + lasts,
    )


def contact_form(message: str = "Hello") -> ContactForm:
    return ContactForm(
        form_id="contact",
        visitor=Visitor(name="Ada", address="ada@example.com"),
        subject="A question",
        message=message,
        submitted_at=datetime.now(UTC),
    )


def data_change(*to: Recipient, urgent: bool = False) -> DataChange:
    return DataChange(
        subscription_id="marks",
        recipients=to or (somebody(),),
        entity=Entity(type="room", id="1", label="Room 1"),
        changed_at=datetime.now(UTC),
        changes=(Change(field="room", label="Room", old="A", new="B"),),
        urgent=urgent,
    )


def ok(delivery: Claimed, *, took: int = 1000) -> Entry:
    return sent(delivery.id, delivery.fence, Reply(250, "2.0.0", "ok"), provider_id="p", took=took)


def later(delivery: Claimed, seconds: float = 30.0, *, spend: bool = True) -> Entry:
    line = history("retried", attempt=delivery.attempt)
    return retry(delivery, Reply(451, "4.3.0", "later"), delay=seconds, spend=spend, cause="temporary", timeline=line)


def over(delivery: Claimed, state: str = "failed", cause: str = "email_refused") -> Entry:
    return end(delivery, Reply(554, "5.6.0", "no"), state=state, cause=cause, timeline=history(state))


def freed(handed: Handed, *, each: float = 0.0) -> Entry:
    """The conversation is over."""
    return free(handed.name, handed.account, "good", each=each)


def parked(account: str, *, seconds: float) -> Entry:
    """A wrong password stops the account."""
    return park(account, state="parked", seconds=seconds, cause="authentication_failed", words="535 no")


class Ledger:
    """A ledger as publishers and workers see it. `now` is frozen until `advance` moves it (microseconds)."""

    def __init__(self, store: Store, sealer: Sealer, accounts: Registry) -> None:
        self.store = store
        self.registry = accounts
        self.publisher = Publisher(store, sealer)
        self.queries = Queries(store)
        self.now = store.now()
        self.advance(0)
        configure(store, accounts)
        for name in accounts.accounts:  # accounts that have sent before: new ones begin with one mail at a time
            store.redis.hset(store.key(f"account:{name}"), "proven", 1)

    def worker(self, name: str = "w1", *, lease: float = LEASE) -> Claims:
        return Claims(self.store, name, lease=lease, crash_limit=CRASHES, keep_sent=3600)

    def advance(self, seconds: float) -> None:
        """Move Redis time. What the server itself lets expire (the hold after an outage) goes with it."""
        self.now += int(seconds * 1e6)
        self.store.redis.set(self.store.key("test-clock"), self.now)
        hold = self.store.redis.get(self.store.key("hold"))
        if hold and int(hold) <= self.now:
            self.store.redis.delete(self.store.key("hold"))

    def pass_time(self, worker: Claims, seconds: float) -> None:
        """Time passes while a worker keeps house."""
        left = seconds
        while left > 0:
            step = min(left, worker.lease / 3)
            self.advance(step)
            worker.claim(0, 1)
            left -= step

    def admitted(self, event: Event, *, tenant: str = "school", **options: Any) -> Admitted:
        envelope = wrap(event, tenant=tenant, **options)
        account = self.registry.route(tenant=tenant, kind=envelope.kind, account=envelope.account)
        return Admitted(envelope, admit(envelope, self.registry), account)

    def publish(self, event: Event | None = None, **options: Any) -> Accepted:
        answer = self.publisher.publish([self.admitted(event or reset_link(), **options)])[0]
        assert isinstance(answer, Accepted), answer
        return answer

    def publish_many(self, count: int, account: str, *, urgent: bool = False) -> list[str]:
        events = [self.admitted(data_change(urgent=urgent), account=account) for _ in range(count)]
        answers = self.publisher.publish(events)
        return [answer.deliveries[0] for answer in answers if isinstance(answer, Accepted)]

    def status(self, delivery_id: str) -> Status:
        found = self.queries.status(delivery_id)
        assert found is not None, delivery_id
        return found

    def state(self, delivery_id: str) -> str:
        return self.status(delivery_id).state

    def fence(self, delivery_id: str) -> int:
        return int(self.store.redis.hget(self.store.key(f"delivery:{delivery_id}"), "fence"))


def all_of(handed: list[Handed]) -> list[Claimed]:
    return [delivery for conversation in handed for delivery in conversation.deliveries]


def take(worker: Claims, conversations: int = 8, size: int = 16) -> list[Claimed]:
    """Claim, and only look at the deliveries."""
    return all_of(worker.claim(conversations, size)[1])


def take_one(worker: Claims) -> Claimed:
    (delivery,) = take(worker, 1, 1)
    return delivery


def known_pace(ledger: Ledger, each: float, account: str = "main") -> None:
    """Conversations with the account were seen to take so many seconds a mail."""
    ledger.publish(account=account)
    worker = ledger.worker("pacemaker")
    (handed,) = worker.claim(1, 1)[1]
    worker.settle([*map(ok, handed.deliveries), freed(handed, each=each)])


def finish(worker: Claims, handed: list[Handed]) -> None:
    """Send everything of these conversations."""
    for conversation in handed:
        worker.settle([*map(ok, conversation.deliveries), freed(conversation)])


def move_time_by_hand(patch: pytest.MonkeyPatch) -> None:
    """Let scripts read a key instead of the clock, where it is set. Their text is otherwise the one that runs."""
    original = store_module.script_source
    clock = "return t[1] * 1000000 + t[2]"

    def with_clock(name: str) -> tuple[str, str]:
        text, _ = original(name)
        assert text.count(clock) == 1
        text = text.replace(clock, f"return tonumber(redis.call('GET', P .. 'test-clock')) or {clock[7:]}")
        return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    patch.setattr(store_module, "script_source", with_clock)
