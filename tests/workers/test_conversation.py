"""A conversation's marks: several in one round trip, but one by one where a person would be asked about a doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from postier.ledger.claims import Claims
from postier.ledger.entries import Entry
from postier.workers import conversation as module
from postier.workers.conversation import Conversation, Mail, Withdrawn
from postier.workers.settler import Settler, Ticket
from tests.ledger.kit import Ledger, data_change, ok, take

_QUICK, _SLOW = 0.001, 1.0  # seconds a mail
_MEASURED = Conversation._pace


class Counting:
    """Counts the round trips that carried a mark."""

    def __init__(self, worker: Claims) -> None:
        self._worker = worker
        self.round_trips: list[int] = []

    def settle(self, entries: Sequence[Entry]) -> list[int]:
        marks = sum(entry[0] == "mark" for entry in entries)
        if marks:
            self.round_trips.append(marks)
        return self._worker.settle(entries)


class Play:
    """A conversation of ten mails, as a driver goes through it."""

    def __init__(self, ledger: Ledger) -> None:
        worker = ledger.worker("w1")
        (handed,) = worker.claim(1, 10)[1]
        self.wire = Counting(worker)
        self.settler = Settler(self.wire)
        self.conversation = Conversation(handed, self.settler, seconds=60)
        self.ids = [delivery.id for delivery in handed.deliveries]

    def start(self) -> Mail:
        mail = self.conversation.next()
        assert mail is not None
        self.conversation.hand_over(mail)
        return mail

    def send(self, count: int) -> None:
        for _ in range(count):
            (delivery,) = self.start()
            self.conversation.settle(delivery, ok(delivery))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, the server counts as a quick one."""
    pace_of(monkeypatch, _QUICK)
    monkeypatch.setattr(module, "_FRESH", 60.0)


def pace_of(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(Conversation, "_pace", lambda self: seconds if self._ended else 0.0)


@pytest.fixture
def ten(ledger: Ledger) -> Iterator[Play]:
    for _ in range(10):
        ledger.publish()
    play = Play(ledger)
    yield play
    play.settler.close()


def test_marks_of_kinds_that_are_sent_again_share_round_trips(ten: Play) -> None:
    ten.send(10)
    ten.conversation.flush()
    assert ten.wire.round_trips == [1, 8, 1]


def test_a_kind_that_is_held_for_a_person_is_marked_mail_by_mail(ledger: Ledger) -> None:
    for _ in range(10):
        ledger.publish(data_change())
    held = Play(ledger)
    held.send(10)
    held.settler.close()
    assert held.wire.round_trips == [1] * 10


def test_a_slow_server_gets_no_marks_ahead(ten: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    pace_of(monkeypatch, _SLOW)
    ten.send(3)
    assert ten.wire.round_trips == [1, 1, 1]


def test_what_was_marked_ahead_and_did_not_start_waits_again_as_if_nothing_had_been(ledger: Ledger, ten: Play) -> None:
    ten.send(2)
    assert ledger.state(ten.ids[5]) == "sending"

    ten.conversation.flush()

    for identity in ten.ids[2:]:
        status = ledger.status(identity)
        assert (status.state, status.attempt, status.history[1:]) == (
            "waiting",
            0,
            ledger.status(ten.ids[9]).history[1:],
        )
    assert [delivery.id for delivery in take(ledger.worker("w2"))] == ten.ids[2:]


def test_a_mark_ahead_that_grew_old_is_repeated_and_finds_out_that_the_lease_is_lost(
    ledger: Ledger, ten: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH", 0.0)
    ten.send(2)
    key = ledger.store.key(f"delivery:{ten.ids[2]}")
    ledger.store.redis.hincrby(key, "fence", 1)  # another worker has it

    with pytest.raises(Withdrawn):
        ten.start()

    assert ten.wire.round_trips[-1] > 1


def test_what_was_marked_ahead_does_not_leave_once_it_was_given_back(ledger: Ledger, ten: Play) -> None:
    ten.send(2)
    ready = ten.conversation.next()  # a driver holds it while the server thinks
    assert ready is not None
    ten.conversation.stop()  # a worker that drains

    with pytest.raises(Withdrawn):
        ten.conversation.hand_over(ready)

    ten.conversation.flush()
    assert take(ledger.worker("w2"))[0].id == ready[0].id


def test_what_is_being_given_back_by_another_thread_does_not_leave(ledger: Ledger, ten: Play) -> None:
    ready = ten.conversation.next()
    assert ready is not None
    put = ten.settler.put

    def interrupted(entries: Sequence[Entry]) -> Ticket:
        with pytest.raises(Withdrawn):
            ten.conversation.hand_over(ready)  # the driver's thread gets its turn in the middle of it
        return put(entries)

    ten.conversation._settler.put = interrupted  # type: ignore[method-assign]
    ten.conversation._unstarted.clear()
    ten.conversation.stop()


def test_what_was_marked_ahead_asks_again_after_a_lease_was_lost(ledger: Ledger, ten: Play) -> None:
    ten.send(2)
    key = ledger.store.key(f"delivery:{ten.ids[2]}")
    ledger.store.redis.hincrby(key, "fence", 1)
    ten.conversation.lose({ten.ids[9]})

    with pytest.raises(Withdrawn):
        ten.start()


def test_no_more_than_a_few_outcomes_wait_for_company(ten: Play) -> None:
    ten.settler.close()  # the flusher never comes
    owed: list[int] = []
    for _ in range(10):
        ten.send(1)
        owed.append(len(ten.settler._queue))
    assert max(owed) <= 4


def test_a_mail_that_ended_before_any_was_handed_over_says_nothing_about_the_pace(
    ten: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Conversation, "_pace", _MEASURED)
    unreadable = ten.conversation.next()
    assert unreadable is not None
    ten.conversation.settle(unreadable[0], ok(unreadable[0]))

    ten.start()

    assert ten.conversation._pace() == 0.0
    assert ten.wire.round_trips == [1]
