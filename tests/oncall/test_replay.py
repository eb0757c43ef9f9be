"""Replay: counted first, once each, at its pace, by another account, later, stopped, and taken back."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from postier.ledger.audit import Audit
from postier.ledger.claims import Claims
from postier.ledger.entries import SUPERSEDED, Claimed, mark
from postier.ledger.groups import Groups
from postier.ledger.replay import How, Replays
from postier.ledger.search import Filters
from tests.ledger.kit import Ledger, contact_form, finish, later, ok, over, reset_link, somebody, take
from tests.oncall.conftest import MakeLedger
from tests.oncall.kit import end_claimed, replay


def test_a_preview_counts_what_would_start_and_why_the_rest_stays(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    failed = ledger.publish_many(3, "main")
    end_claimed(worker)
    ledger.publish(reset_link(lasts=timedelta(seconds=100)))
    (link,) = end_claimed(worker)
    ledger.publish(contact_form())
    unknown = end_claimed(worker, state="unknown", cause="outcome_unknown")
    sent = ledger.publish_many(1, "main")
    finish(worker, worker.claim(8, 16)[1])
    empty = ledger.publish_many(1, "main")
    end_claimed(worker)
    ledger.store.redis.delete(ledger.store.key(f"payload:{empty[0]}"))
    waiting = ledger.publish_many(1, "main")
    ledger.advance(200)
    stays = [link, *unknown, *sent, *waiting, *empty, "nobody", ""]

    shown = replays.preview([*failed, *stays], How(pace=2), ledger.registry)

    assert (shown.total, shown.starts, dict(shown.accounts)) == (11, 3, {"main": 3})
    assert dict(shown.kinds) == {"data_change": 3}
    assert shown.lasts == pytest.approx(1.0)
    assert {ledger.state(one) for one in failed} == {"failed"}
    answers = replay(ledger, [*failed, *stays])
    assert [answers[one] for one in failed] == ["done"] * 3
    assert [answers[one] for one in stays] == [
        "over", "unknown", "unknown", "already_sent", "not_possible", "no_content", "unknown_id", "unknown_id",
    ]  # fmt: skip
    assert dict(shown.stays) == Counter(answers[one] for one in stays)


def test_a_preview_skips_what_is_over_by_the_time_its_turn_comes(ledger: Ledger, replays: Replays) -> None:
    for _ in range(4):
        ledger.publish(reset_link(lasts=timedelta(seconds=100)))
    ids = end_claimed(ledger.worker())

    shown = replays.preview(ids, How(pace=0.015), ledger.registry)

    assert (shown.starts, dict(shown.stays)) == (2, {"over": 2})  # after 0 and 67 s; the next would be at 133 s
    assert Counter(replay(ledger, ids, pace=0.015).values()) == {"done": 2, "over": 2}


def test_a_preview_of_groups_counts_what_a_preview_of_their_members_counts(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    ledger.publish_many(10, "main")
    end_claimed(worker, cause="refused")
    ledger.pass_time(worker, 30)
    ledger.publish_many(15, "main")
    end_claimed(worker, cause="email_refused")
    ledger.publish_many(1, "main")
    (gone,) = end_claimed(worker, cause="temporary")
    ledger.store.redis.delete(ledger.store.key(f"payload:{gone}"))
    ledger.pass_time(worker, 30)
    for _ in range(4):
        ledger.publish(reset_link(lasts=timedelta(seconds=100)))
    ledger.publish(contact_form())
    end_claimed(worker)
    ledger.publish(contact_form())
    end_claimed(worker, state="unknown", cause="outcome_unknown")
    groups, early = Groups(ledger.store), Filters(until=ledger.now / 1e6 - 20)
    states = ("failed", "unknown", "expired")

    for wanted in (Filters(), early, Filters(cause="email_refused"), Filters(since=ledger.now / 1e6 - 20)):
        for how in (How(), How(pace=0.2, at=ledger.now / 1e6 + 20), How(unknown_too=True, account="spare")):
            ids = list(groups.members(wanted, states=states))
            shown = replays.preview_groups(groups.spans(wanted, states=states), how, ledger.registry)
            assert shown == replays.preview(ids, how, ledger.registry), (wanted, how)
            assert shown.total == len(ids) > 0
    everything = replays.preview_groups(groups.spans(Filters(), states=states), How(pace=1), ledger.registry)
    assert dict(everything.stays) == {"unknown": 2, "no_content": 1}


def test_the_same_replay_twice_starts_each_delivery_once_even_if_it_failed_again(ledger: Ledger) -> None:
    worker = ledger.worker()
    ids = ledger.publish_many(5, "main")
    end_claimed(worker)

    assert set(replay(ledger, ids[:3], replay_id="r-1").values()) == {"done"}
    assert sorted(end_claimed(worker)) == sorted(ids[:3])
    assert list(replay(ledger, ids, replay_id="r-1").values()) == ["in_this_replay"] * 3 + ["done"] * 2

    assert sorted(one.id for one in take(worker)) == sorted(ids[3:])


def test_a_paced_replay_comes_due_at_its_pace_and_never_faster(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    ids = ledger.publish_many(50, "main")
    end_claimed(worker)
    list(replays.start(ids[:20], How(pace=5), ledger.registry, replay_id="r-1"))
    list(replays.start(ids[20:], How(pace=5), ledger.registry, replay_id="r-1"))  # the second batch goes on behind it

    handed = []
    for _ in range(120):
        handed += [(ledger.now, one.id) for one in claim_and_send(worker)]
        ledger.advance(0.1)

    assert [one for _, one in handed] == ids
    gaps = [(b[0] - a[0]) / 1e6 for a, b in itertools.pairwise(handed)]
    assert (min(gaps), max(gaps)) == (pytest.approx(0.2, abs=0.11), pytest.approx(0.2, abs=0.11))
    assert (handed[-1][0] - handed[0][0]) / 1e6 == pytest.approx(49 * 0.2, rel=0.02)


def claim_and_send(worker: Claims) -> list[Claimed]:
    handed = worker.claim(8, 16)[1]
    finish(worker, handed)
    return [one for conversation in handed for one in conversation.deliveries]


def test_after_an_outage_a_paced_replay_does_not_catch_up(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    ids = ledger.publish_many(40, "main")
    end_claimed(worker)
    list(replays.start(ids, How(pace=5), ledger.registry, replay_id="r-1"))
    ledger.advance(4)  # nobody looks for twenty slots

    handed = []
    for _ in range(150):
        handed += [(ledger.now, one.id) for one in claim_and_send(worker)]
        ledger.advance(0.1)

    assert sorted(one for _, one in handed) == sorted(ids)
    times = [at for at, _ in handed]
    most = max(sum(1 for at in times if start <= at < start + 2e6) for start in times)
    assert most <= 2 * 5 + 6  # what was late by less than a second went at once


def test_a_paced_replay_waits_where_its_account_stands_still(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    ids = ledger.publish_many(20, "main")
    end_claimed(worker)
    list(replays.start(ids, How(pace=5), ledger.registry))
    ledger.store.run("manage", ("pause", "main", "ops"))
    for _ in range(60):
        worker.claim(8, 16)
        ledger.advance(0.1)
    ledger.store.run("manage", ("resume", "main", "ops"))

    handed = []
    for _ in range(100):
        handed += [(ledger.now, one.id) for one in claim_and_send(worker)]
        ledger.advance(0.1)

    assert sorted(one for _, one in handed) == sorted(ids)
    times = [at for at, _ in handed]
    assert max(sum(1 for at in times if start <= at < start + 1e6) for start in times) <= 6


def test_a_replay_by_another_account_keeps_to_the_tenant_s_accounts(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={}, spare={})
    accounts = dict(ledger.registry.accounts)
    accounts["spare"] = accounts["spare"].model_copy(update={"tenant": "shop"})
    strict = ledger.registry.model_copy(update={"accounts": accounts})
    ids = ledger.publish_many(1, "main")
    end_claimed(ledger.worker())

    how = How(account="spare")
    assert dict(Replays(ledger.store, "ann").preview(ids, how, strict).stays) == {"other_tenant": 1}
    assert dict(Replays(ledger.store, "ann").start(ids, how, strict)) == {ids[0]: "other_tenant"}
    assert replay(ledger, ids, account="spare") == {ids[0]: "done"}
    (taken,) = take(ledger.worker())
    assert (taken.id, ledger.status(ids[0]).account) == (ids[0], "spare")


def test_a_replay_for_later_has_its_kind_s_full_time_from_then(ledger: Ledger) -> None:
    ids = ledger.publish_many(1, "main")
    worker = ledger.worker()
    end_claimed(worker)
    then = ledger.now / 1e6 + 3600

    replay(ledger, ids, at=then)

    assert take(worker) == []
    assert ledger.status(ids[0]).due == pytest.approx(then)
    assert ledger.status(ids[0]).facts["deadline"] == pytest.approx(then + 48 * 3600)
    ledger.pass_time(worker, 3601)
    assert [one.id for one in take(worker)] == ids


def test_stopping_a_replay_takes_back_what_waits_and_leaves_what_started(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    ids = ledger.publish_many(10, "main")
    end_claimed(worker)
    ended = {one: ledger.status(one).ended_at for one in ids}
    list(replays.start(ids, How(pace=1, account="spare"), ledger.registry, replay_id="r-1"))
    started = []
    for _ in range(3):
        started += [one.id for one in claim_and_send(worker)]
        ledger.advance(1)

    assert replays.stop("r-1") == 7
    assert replays.stop("r-1") == 0
    assert replays.stop("r-2") is None
    for one in set(ids) - set(started):
        status = ledger.status(one)
        assert (status.state, status.account, status.cause) == ("failed", "main", "recipient_refused")
        assert (status.attempt, "was_attempt" in status.facts) == (1, False)
        assert status.ended_at == ended[one]
    ledger.pass_time(worker, 30)
    assert take(worker) == []
    assert dict(replays.start(ids, How(), ledger.registry, replay_id="r-1"))[ids[-1]] == "stopped"
    progress = replays.progress("r-1")
    assert progress is not None
    assert (progress.states, progress.left) == ({"sent": 3, "taken_back": 7}, 0)
    assert set(replay(ledger, ids).values()) == {"done", "already_sent"}
    assert sorted(one.id for one in take(worker, 20)) == sorted(set(ids) - set(started))


def test_an_attempt_that_began_is_not_taken_back(ledger: Ledger, replays: Replays) -> None:
    worker = ledger.worker()
    ids = ledger.publish_many(2, "main")
    end_claimed(worker)
    list(replays.start(ids, How(), ledger.registry, replay_id="r-1"))
    held, other = take(worker)
    worker.settle([later(other)])

    assert replays.stop("r-1") == 0
    worker.settle([ok(held)])
    assert (ledger.state(held.id), ledger.state(other.id)) == ("sent", "waiting")


def test_a_sent_delivery_keeps_nothing_of_its_earlier_failure(ledger: Ledger) -> None:
    worker = ledger.worker()
    (one,) = ledger.publish_many(1, "main")
    worker.settle([later(take(worker)[0], 5)])
    ledger.advance(6)
    worker.settle([ok(take(worker)[0])])

    assert (ledger.status(one).cause, ledger.status(one).due) == ("", None)


def test_replays_are_in_the_timeline_and_the_audit(ledger: Ledger, replays: Replays) -> None:
    ids = ledger.publish_many(3, "main")
    worker = ledger.worker()
    end_claimed(worker)
    list(replays.start(ids, How(pace=5), ledger.registry, replay_id="r-1"))
    replays.stop("r-1")

    steps = [(line["what"], line.get("by"), line.get("replay")) for line in ledger.status(ids[2]).history]
    assert steps[-2:] == [("replayed", "ann", "r-1"), ("replay_stopped", "ann", "r-1")]
    lines = [(line.who, line.what, line.subject, line.count) for line in Audit(ledger.store).entries()]
    assert lines == [("ann", "replay.stopped", "r-1", 3), ("ann", "deliveries.replayed", "r-1", 3)]


def test_an_expired_link_is_skipped_though_its_kind_would_have_time(ledger: Ledger) -> None:
    worker = ledger.worker()
    ends = datetime.fromtimestamp(ledger.now / 1e6 + 300, UTC)
    (one,) = ledger.publish(reset_link().model_copy(update={"expires_at": ends})).deliveries
    worker.settle([over(take(worker)[0])])
    ledger.advance(299)
    assert replay(ledger, [one], at=ledger.now / 1e6 + 10) == {one: "over"}
    assert replay(ledger, [one]) == {one: "done"}
    assert ledger.status(one).facts["deadline"] - ledger.now / 1e6 < 2


def test_what_was_superseded_while_it_was_sent_is_not_sent_by_a_replay(ledger: Ledger) -> None:
    worker, person = ledger.worker(), somebody()
    (old,) = ledger.publish(reset_link(person)).deliveries
    (held,) = take(worker)
    ledger.publish(reset_link(person, token="newer"))
    worker.settle([over(held)])
    assert replay(ledger, [old]) == {old: "done"}

    again = next(one for one in take(worker) if one.id == old)

    assert worker.settle([mark(again)]) == [SUPERSEDED]
