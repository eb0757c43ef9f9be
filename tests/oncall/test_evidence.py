"""What a worker knows of an attempt reaches the person who has to judge it."""

from __future__ import annotations

from postier.console.timeline import step_in_words, timeline
from postier.console.unknown import evidence_of
from postier.ledger.entries import mark
from postier.schemas.errors import OutcomeUnknown, TemporaryError
from postier.workers.outcomes import decide
from tests.ledger.kit import LEASE, Ledger, contact_form, data_change, take, take_one


def test_the_evidence_of_an_unknown_outcome_is_kept_without_addresses(ledger: Ledger) -> None:
    ledger.publish(contact_form())
    worker = ledger.worker()
    held = take(worker)[0]
    evidence = {"bytes": 812, "stage": "body", "last_reply": "354 go on, office@school.example"}
    lost = OutcomeUnknown("no verdict on the whole body", stage="body", evidence=evidence)
    worker.settle([mark(held), decide(held, lost, account="main", took=1.5)])

    (status,) = ledger.queries.statuses([held.id])
    found = evidence_of(status)

    assert (status.state, found["stage"], found["message_id"]) == ("unknown", "body", held.message_id)
    assert found["handed_over_at"]
    assert found["evidence"]["bytes"] == "812"
    assert found["evidence"]["last_reply"].startswith("354 go on, o***@s***")
    assert "bytes 812" in step_in_words(timeline(status, {"main": "smtp"})[0])


def test_a_worker_that_died_leaves_its_name_and_the_time_of_the_handover(ledger: Ledger) -> None:
    ledger.publish(contact_form())
    dead, alive = ledger.worker("dead"), ledger.worker("alive")
    held = take_one(dead)
    dead.settle([mark(held)])
    ledger.pass_time(alive, LEASE * 1.4)

    (status,) = ledger.queries.statuses([held.id])
    found = evidence_of(status)

    assert (status.state, status.cause, found["worker"]) == ("unknown", "worker_died", "dead")
    assert found["handed_over_at"]


def test_a_retry_says_class_duration_driver_and_what_follows(ledger: Ledger) -> None:
    ledger.publish(data_change())
    worker = ledger.worker()
    held = take_one(worker)
    busy = TemporaryError("come back", code=451, enhanced="4.3.0", stage="data", reply_class="retry")
    worker.settle([decide(held, busy, account="main", took=0.25)])

    (status,) = ledger.queries.statuses([held.id])
    step = timeline(status, {"main": "smtp"})[0]

    assert (step["what"], step["class"], step["driver"], step["took"], step["code"]) == (
        "retried", "retry", "smtp", 250_000, 451,
    )  # fmt: skip
    assert status.due is not None
    words = step_in_words(step)
    assert "account main (smtp) in 0.250 s" in words
    assert "next at" in words
