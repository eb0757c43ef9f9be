"""Accounts with limits, fallbacks and health, in a ledger whose clock is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Handed, free, mark
from postier.schemas.account import Registry
from postier.schemas.events import DataChange, Entity, Recipient
from postier.schemas.events.data_change import Change
from tests.ledger.kit import TENANTS, Ledger, all_of, freed, ok, somebody

MakeGovernor = Callable[..., Ledger]


def accounts(**given: dict[str, Any]) -> Registry:
    """One account per argument; its value is its settings, `limits` among them."""
    rows = {
        name: {"driver": "smtp", "sender": {"address": f"post@{name}.example"}, **settings}
        for name, settings in given.items()
    }
    return Registry.model_validate({"default_account": next(iter(rows)), "accounts": rows, "tenants": TENANTS})


def set_clock(ledger: Ledger, moment: datetime) -> None:
    """Let it be this moment, and the ledger be told when the accounts' days end."""
    ledger.now = int(moment.timestamp() * 1e6)
    ledger.advance(0)
    tell(ledger)


def tell(ledger: Ledger, *, told: Mapping[str, str] | None = None, **credentials: str) -> list[str]:
    """What workers do once a minute: say the accounts, the end of their day, what they log in with (and did before)."""
    now = ledger.store.now
    ledger.store.now = lambda: ledger.now  # type: ignore[method-assign]
    try:
        return configure(ledger.store, ledger.registry, credentials=credentials, told=told)
    finally:
        ledger.store.now = now  # type: ignore[method-assign]


def send(worker: Claims, conversations: int = 8, size: int = 16) -> list[Claimed]:
    """Claim once and send everything."""
    handed = worker.claim(conversations, size)[1]
    for conversation in handed:
        worker.settle([*map(ok, conversation.deliveries), freed(conversation)])
    return all_of(handed)


def send_for(ledger: Ledger, worker: Claims, seconds: float, step: float = 1.0) -> list[int]:
    """Send whatever may leave, for so long; the moments (microseconds) at which each left."""
    left: list[int] = []
    end = ledger.now + int(seconds * 1e6)
    while True:
        left += [ledger.now] * len(send(worker))
        if ledger.now >= end:
            return left
        ledger.advance(min(step, (end - ledger.now) / 1e6))


def moment(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def group_change(count: int, **changes: Any) -> DataChange:
    """One change for many, who may share a mail."""
    given: dict[str, Any] = {
        "subscription_id": "marks",
        "recipients": tuple(somebody() for _ in range(count)),
        "entity": Entity(type="room", id="1", label="Room 1"),
        "changed_at": datetime.now(UTC),
        "changes": (Change(field="room", label="Room", old="A", new="B"),),
        "together": True,
    }
    return DataChange.model_validate(given | changes)


def bad(worker: Claims, handed: Handed, words: str = "no connection") -> int:
    """The server could not be reached: what was held goes back. The answer to the end of the conversation."""
    from postier.ledger.entries import back

    return worker.settle(
        [*(back(one) for one in reversed(handed.deliveries)), free(handed.name, handed.account, "bad", words)]
    )[-1]


def good(worker: Claims, handed: Handed) -> int:
    """Everything is sent; the answer to the end of the conversation."""
    return worker.settle([*map(mark, handed.deliveries), *map(ok, handed.deliveries), freed(handed)])[-1]


def field(ledger: Any, account: str, name: str) -> str:
    """What the ledger keeps of an account."""
    value = ledger.store.redis.hget(ledger.store.key(f"account:{account}"), name)
    return value.decode() if value else ""


def person(number: int) -> Recipient:
    return Recipient(address=f"reader{number}@example.org")


def standing(ledger: Ledger, account: str = "main") -> dict[str, Any]:
    """How people see the account at the ledger's hand-moved time."""
    return ledger.queries.accounts(now=ledger.now / 1e6)[account]
