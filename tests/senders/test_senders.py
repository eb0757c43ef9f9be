"""A sender is confirmed by its owner alone, once, in time, through the link that was mailed last."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from postier.ledger.audit import Audit
from postier.ledger.book import Book
from postier.ledger.merged import merge
from postier.ledger.senders import MAILS_A_DAY, Asked, Senders
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.schemas.errors import ConfigurationError

HELLO = "hello@shop.example"


def states(senders: Senders) -> dict[str, str]:
    return {one.address: one.state for one in senders.list()}


def let_time_pass(store: Store, seconds: float) -> None:
    """As if every sender had been mailed so much earlier."""
    for field, text in store.redis.hgetall(store.key("book")).items():
        if field.startswith(b"s:"):
            entry = json.loads(text)
            entry["data"]["mailed_at"] -= seconds
            entry["data"]["day"] -= seconds
            store.redis.hset(store.key("book"), field, json.dumps(entry))


def test_the_right_link_confirms_once(senders: Senders, store: Store) -> None:
    asked = senders.add(HELLO, tenant="shop", name="The Shop")
    assert asked.sender.state == "pending"

    first, second = senders.confirm(asked.token), senders.confirm(asked.token)

    assert first is not None
    assert (first.state, second) == ("confirmed", None)
    assert merge(Registry(), Book(store).read()).confirmed == {("shop", HELLO)}
    assert [entry.what for entry in Audit(store).entries()] == ["sender.confirmed", "sender.added"]


def test_looking_at_a_link_uses_nothing_up(senders: Senders) -> None:
    asked = senders.add(HELLO, tenant="shop")

    for _ in range(5):
        assert senders.look(asked.token) == asked.sender
    assert states(senders) == {HELLO: "pending"}
    assert senders.confirm(asked.token) is not None


def test_of_many_at_once_exactly_one_confirms(senders: Senders) -> None:
    asked = senders.add(HELLO, tenant="shop")
    barrier = threading.Barrier(8)

    def confirm(_: int) -> bool:
        barrier.wait()
        return senders.confirm(asked.token) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(confirm, range(8))) == [False] * 7 + [True]


@pytest.mark.parametrize(
    "forge",
    [
        lambda mine, other: "",
        lambda mine, other: "x" * 5000,
        lambda mine, other: mine.token.partition(".")[0] + "." + "A" * 43,
        lambda mine, other: mine.token[:-1] + ("A" if mine.token[-1] != "A" else "B"),
        lambda mine, other: mine.token + "A",
        lambda mine, other: mine.token.partition(".")[0] + "." + other.token.partition(".")[2],
        lambda mine, other: other.token.partition(".")[0] + "." + mine.token.partition(".")[2],
        lambda mine, other: mine.token.upper(),
        lambda mine, other: mine.token + "\n",
        lambda mine, other: "s:" + mine.token,
    ],
)
def test_no_other_token_confirms_anything(senders: Senders, forge) -> None:
    mine: Asked = senders.add(HELLO, tenant="shop")
    other: Asked = senders.add(HELLO, tenant="school")

    token = forge(mine, other)

    assert senders.look(token) is None
    assert senders.confirm(token) is None
    assert {one.state for one in senders.list()} == {"pending"}


def test_a_link_that_ran_out_confirms_nothing(senders: Senders) -> None:
    asked = senders.add(HELLO, tenant="shop", life=-1)

    assert senders.look(asked.token) is None
    assert senders.confirm(asked.token) is None


def test_a_new_link_ends_the_older_one(senders: Senders, store: Store) -> None:
    old = senders.add(HELLO, tenant="shop", name="The Shop")
    let_time_pass(store, 61)
    new = senders.resend(HELLO, tenant="shop")

    assert senders.confirm(old.token) is None
    assert new.sender.name == "The Shop"
    assert senders.confirm(new.token) is not None


def test_an_address_is_asked_once_a_minute_and_ten_times_a_day(senders: Senders, store: Store) -> None:
    senders.add(HELLO, tenant="shop")
    with pytest.raises(ConfigurationError, match=r"was just asked: wait (60|[1-5]\d) seconds"):
        senders.resend(HELLO, tenant="shop")
    with pytest.raises(ConfigurationError, match="was just asked"):
        senders.add(HELLO, tenant="shop")
    for _ in range(MAILS_A_DAY - 1):
        let_time_pass(store, 61)
        senders.resend(HELLO, tenant="shop")
    let_time_pass(store, 61)

    with pytest.raises(ConfigurationError, match="was asked 10 times within a day"):
        senders.resend(HELLO, tenant="shop")
    let_time_pass(store, 86_400)
    assert senders.resend(HELLO, tenant="shop").sender.mails == 1


def test_cancelling_ends_the_link_and_the_confirmation(senders: Senders, store: Store) -> None:
    pending = senders.add(HELLO, tenant="shop")
    senders.cancel(HELLO, tenant="shop")
    assert senders.confirm(pending.token) is None
    let_time_pass(store, 61)
    again = senders.add(HELLO, tenant="shop")
    assert senders.confirm(again.token) is not None

    senders.cancel(HELLO, tenant="shop")

    assert merge(Registry(), Book(store).read()).confirmed == frozenset()
    with pytest.raises(ConfigurationError, match="no sender"):
        senders.cancel(HELLO, tenant="shop")


def test_a_changed_address_serves_only_once_its_owner_confirmed_and_then_alone(senders: Senders, store: Store) -> None:
    senders.confirm(senders.add(HELLO, tenant="shop").token)
    asked = senders.add("new@shop.example", tenant="shop", replaces=HELLO)
    assert merge(Registry(), Book(store).read()).confirmed == {("shop", HELLO)}

    senders.confirm(asked.token)

    assert merge(Registry(), Book(store).read()).confirmed == {("shop", "new@shop.example")}
    assert states(senders) == {HELLO: "cancelled", "new@shop.example": "confirmed"}


def test_the_ledger_knows_no_token(senders: Senders, store: Store) -> None:
    asked = senders.add(HELLO, tenant="shop")
    senders.confirm(asked.token)

    secret = asked.token.partition(".")[2].encode()
    for key in store.redis.scan_iter(match=store.key("*")):
        assert secret not in key + (store.redis.dump(key) or b"")
        if store.redis.type(key) == b"hash":  # a dump may be compressed
            assert secret not in b"".join(store.redis.hgetall(key).values())


@pytest.mark.parametrize("address", ["", "a b@shop.example", "a@b@c", "x@\nshop.example", "a" * 400 + "@shop.example"])
def test_what_is_no_address_is_refused_without_repeating_it(senders: Senders, address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^sender: an address reads name@domain\.example$"):
        senders.add(address, tenant="shop")
