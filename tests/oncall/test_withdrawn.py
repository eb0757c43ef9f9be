"""The reply to the `sending` mark gets lost: nothing left, and the worker that lives can say so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Entry
from postier.ledger.manage import Management
from postier.schemas.errors import LedgerUnavailable
from postier.workers.conversation import Conversation
from postier.workers.settler import Settler
from tests.ledger.kit import LEASE, Ledger, contact_form, take_one


class LosesReplies:
    """The ledger behind a line that loses the replies to marks: what was asked is done."""

    def __init__(self, worker: Claims) -> None:
        self._worker = worker

    def settle(self, entries: Sequence[Entry]) -> list[int]:
        answers = self._worker.settle(entries)
        if any(entry[0] == "mark" for entry in entries):
            raise LedgerUnavailable("Redis cannot be reached: TimeoutError")
        return answers


@pytest.fixture
def interrupted(ledger: Ledger) -> tuple[Conversation, Claimed]:
    """A conversation that asked to hand a contact form over (its kind holds doubts for a person) and got no answer."""
    ledger.publish(contact_form())
    worker = ledger.worker("w1")
    (handed,) = worker.claim(1, 1)[1]
    settler = Settler(LosesReplies(worker))
    conversation = Conversation(handed, settler, seconds=60)
    mail = conversation.next()
    assert mail is not None
    with pytest.raises(LedgerUnavailable):
        conversation.hand_over(mail)
    settler.close()
    return conversation, mail[0]


def test_a_mail_whose_mark_was_written_but_not_confirmed_waits_again_at_once(
    ledger: Ledger, interrupted: tuple[Conversation, Claimed]
) -> None:
    conversation, held = interrupted
    assert ledger.state(held.id) == "sending"

    conversation.flush()

    status = ledger.status(held.id)
    assert (status.state, status.attempt, status.history[-1]["what"]) == ("waiting", 0, "withdrawn")
    again = take_one(ledger.worker("w2"))
    assert (again.id, again.attempt, again.crashes) == (held.id, 1, 0)


def test_a_doubt_that_arose_meanwhile_is_taken_back_by_the_worker_that_lives(
    ledger: Ledger, interrupted: tuple[Conversation, Claimed]
) -> None:
    conversation, held = interrupted
    ledger.pass_time(ledger.worker("alive"), LEASE * 1.4)
    assert (ledger.state(held.id), ledger.status(held.id).cause) == ("unknown", "worker_died")

    conversation.flush()
    conversation.flush()

    status = ledger.status(held.id)
    assert (status.state, status.ended_at, status.facts.get("crashes", 0)) == ("waiting", None, 0)
    assert ledger.queries.counts()["unknown"] == 0
    assert ledger.store.redis.hlen(ledger.store.key("groups")) == 0
    assert ledger.store.redis.zscore(ledger.store.key("deadline"), held.id)
    assert take_one(ledger.worker("w2")).id == held.id


def test_what_a_person_decided_meanwhile_stays(ledger: Ledger, interrupted: tuple[Conversation, Claimed]) -> None:
    conversation, held = interrupted
    ledger.pass_time(ledger.worker("alive"), LEASE * 1.4)
    assert dict(Management(ledger.store, "ann").resolve([held.id])) == {held.id: "done"}

    conversation.flush()

    assert ledger.state(held.id) == "sent"


def test_a_worker_that_died_leaves_the_doubt(ledger: Ledger, interrupted: tuple[Conversation, Claimed]) -> None:
    _, held = interrupted
    ledger.pass_time(ledger.worker("alive"), LEASE * 1.4)

    assert (ledger.state(held.id), ledger.status(held.id).cause) == ("unknown", "worker_died")
