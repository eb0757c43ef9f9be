"""Overflow to a fallback, packets of recipients, allowances of publishers, and what people see of it."""

from __future__ import annotations

import pytest

from postier.ledger.entries import park, slow
from postier.ledger.publish import Admitted, admit_and_route
from postier.schemas.account import Registry
from postier.schemas.envelope import Envelope
from postier.schemas.errors import InvalidEvent
from postier.schemas.events import Event
from tests.governor.kit import MakeGovernor, field, group_change, moment, send, send_for, set_clock, standing
from tests.ledger.kit import LEASE, Ledger, all_of, contact_form, data_change, later, reset_link, somebody


def stop(ledger: Ledger, account: str, seconds: float = 600) -> None:
    entry = park(account, state="parked", seconds=seconds, cause="authentication_failed", words="535")
    ledger.worker("ops").settle([entry])


def accounts_of(ledger: Ledger, ids: list[str]) -> set[str]:
    return {ledger.status(identity).account for identity in ids}


@pytest.mark.parametrize(
    ("rule", "trouble", "moves"),
    [
        ("never", "parked", False), ("never", "quota", False), ("never", "slow", False),
        ("parked", "parked", True), ("parked", "quota", True), ("parked", "slow", False), ("parked", "paused", False),
        ("slow", "parked", True), ("slow", "quota", True), ("slow", "slow", True),
    ],
)  # fmt: skip
def test_mail_overflows_as_the_accounts_rule_says(
    make_governor: MakeGovernor, rule: str, trouble: str, moves: bool
) -> None:
    ledger = make_governor(main={"fallback": "spare", "overflow": rule, "limits": {"per_day": 5}}, spare={})
    set_clock(ledger, moment(2026, 6, 1, 12))
    worker = ledger.worker()
    if trouble == "quota":
        ledger.publish_many(5, "main")
        assert len(send(worker)) == 5
    elif trouble == "slow":
        worker.settle([slow("main", seconds=60)])
    elif trouble == "paused":
        ledger.store.run("manage", ("pause", "main", "ops"))
    else:
        stop(ledger, "main")
    ids = ledger.publish_many(3, "main")
    gone = [delivery.id for _ in range(3) for delivery in send(worker)]
    assert gone == (ids if moves else [])
    assert accounts_of(ledger, ids) == {"spare" if moves else "main"}
    if moves:
        reason = {"parked": "authentication_failed"}.get(trouble, trouble)
        shown = ledger.status(ids[0])
        assert [(line["what"], line["from"], line["to"], line["why"]) for line in shown.history] == [
            ("overflowed", "main", "spare", reason)
        ]
        assert shown.facts["via"] == "main"


def test_mail_goes_along_the_chain_to_the_first_account_that_can_send(make_governor: MakeGovernor) -> None:
    ledger = make_governor(a={"fallback": "b"}, b={"fallback": "c"}, c={})
    worker = ledger.worker()
    stop(ledger, "a")
    stop(ledger, "b")
    ids = ledger.publish_many(250, "a")
    gone = [delivery.id for _ in range(8) for delivery in send(worker)]
    assert gone == ids
    assert accounts_of(ledger, ids) == {"c"}
    assert ledger.queries.counts()["waiting"] == 0


def test_nothing_moves_or_is_lost_while_nobody_can_send_and_each_mail_leaves_once(make_governor: MakeGovernor) -> None:
    ledger = make_governor(a={"fallback": "b"}, b={"fallback": "c"}, c={})
    worker = ledger.worker()
    for name in "abc":
        stop(ledger, name, 600)
    ids = ledger.publish_many(120, "a")
    assert send_for(ledger, worker, 60) == []
    assert accounts_of(ledger, ids) == {"a"}
    ledger.store.run("manage", ("resume", "c", "ops"))
    gone: list[str] = []
    for _ in range(30):
        gone += [delivery.id for delivery in send(worker)]
        ledger.advance(1)
    assert sorted(gone) == sorted(ids)


def test_what_waits_leaves_by_its_own_account_when_that_one_is_back_first(make_governor: MakeGovernor) -> None:
    ledger = make_governor(a={"fallback": "b"}, b={})
    worker = ledger.worker()
    stop(ledger, "a", 20)
    stop(ledger, "b", 3600)
    ids = ledger.publish_many(40, "a")
    assert len(send_for(ledger, worker, 40)) == 40
    assert accounts_of(ledger, ids) == {"a"}


def test_fallbacks_that_came_to_form_a_loop_move_nothing_round(make_governor: MakeGovernor) -> None:
    ledger = make_governor(a={"fallback": "b"}, b={})
    ledger.store.redis.hset(ledger.store.key("account:b"), mapping={"fallback": "a", "overflow": "parked"})
    worker = ledger.worker()
    stop(ledger, "a")
    stop(ledger, "b")
    ids = ledger.publish_many(20, "a")
    send_for(ledger, worker, 120)
    assert all(ledger.status(identity).history == [] for identity in ids)


def test_a_fallback_whose_quota_is_spent_takes_nothing_over(make_governor: MakeGovernor) -> None:
    ledger = make_governor(a={"fallback": "b"}, b={"limits": {"per_day": 4}})
    set_clock(ledger, moment(2026, 6, 1, 12))
    worker = ledger.worker()
    ledger.publish_many(4, "b")
    assert len(send(worker)) == 4
    stop(ledger, "a")
    ids = ledger.publish_many(10, "a")
    send_for(ledger, worker, 30)
    assert accounts_of(ledger, ids) == {"a"}


# --- packets


def mails_of(handed: list) -> list[int]:  # type: ignore[type-arg]
    """How many recipients each mail of these conversations has, as workers put them together."""
    from postier.workers.conversation import _mails

    return [len(mail) for conversation in handed for mail in _mails(conversation.deliveries)]


@pytest.mark.parametrize(("people", "most", "expected"), [(120, 50, [20, 50, 50]), (50, 50, [50]), (3, 1, [1, 1, 1])])
def test_recipients_who_may_share_a_mail_go_in_packets_of_the_accounts_size(
    make_governor: MakeGovernor, people: int, most: int, expected: list[int]
) -> None:
    ledger = make_governor(main={"limits": {"max_recipients": most}})
    ledger.publish(group_change(people))
    assert sorted(mails_of(ledger.worker().claim(8, 16)[1])) == expected


def test_a_paced_account_fills_each_packet_before_the_next(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_recipients": 30, "per_minute": 100}})
    ledger.publish(group_change(300))
    worker = ledger.worker()
    mails: list[int] = []
    for _ in range(40):
        handed = worker.claim(2, 2)[1]
        mails += mails_of(handed)
        for conversation in handed:
            from tests.governor.kit import good

            good(worker, conversation)
        ledger.advance(1)
    assert mails == [30] * 10


def test_events_and_sensitive_kinds_never_share_a_mail(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    ledger.publish(group_change(4))
    ledger.publish(group_change(4))
    ledger.publish(data_change(somebody(), somebody()))
    for _ in range(3):
        ledger.publish(reset_link())
    assert sorted(mails_of(ledger.worker().claim(8, 100)[1])) == [1, 1, 1, 1, 1, 4, 4]


def test_only_recipients_refused_for_now_are_tried_again_and_they_share_a_mail_again(
    make_governor: MakeGovernor,
) -> None:
    from tests.ledger.kit import freed, ok, over

    ledger = make_governor(main={})
    ledger.publish(group_change(6))
    worker = ledger.worker()
    (held,) = worker.claim(1, 1)[1]
    a, b, c, *rest = held.deliveries
    worker.settle([later(a, 60), over(b, "suppressed", "recipient_refused"), later(c, 61), *map(ok, rest), freed(held)])
    ledger.advance(62)
    (again,) = worker.claim(1, 1)[1]
    assert {one.id for one in again.deliveries} == {a.id, c.id}
    assert mails_of([again]) == [2]


def test_after_a_crash_each_recipient_of_a_packet_has_a_mail_and_a_permit_of_its_own(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={"limits": {"per_hour": 10}})
    ledger.publish(group_change(6))
    dead, alive = ledger.worker("dead"), ledger.worker("alive")
    assert mails_of(dead.claim(1, 1)[1]) == [6]
    ledger.pass_time(alive, LEASE * 2)
    handed = []
    for _ in range(10):
        handed += alive.claim(8, 1)[1]
    assert mails_of(handed) == [1] * 6
    assert field(ledger, "main", "hour_used") == "7"


# --- cooldowns and budgets


def with_registry(ledger: Ledger, **tenant: object) -> Registry:
    table = ledger.registry.model_dump()
    table["tenants"]["school"].update(tenant)
    return Registry.model_validate(table)


def publish(ledger: Ledger, registry: Registry, event: Event | Envelope) -> object:
    from postier.schemas.edge import wrap

    envelope = event if isinstance(event, Envelope) else wrap(event, tenant="school")
    admitted: Admitted = admit_and_route(envelope, registry)
    return ledger.publisher.publish([admitted])[0]


def test_a_second_validation_mail_is_refused_with_the_time_to_try_again_and_a_repeated_publish_is_not(
    make_governor: MakeGovernor,
) -> None:
    from postier.schemas.edge import wrap
    from postier.schemas.events import AccountValidation

    ledger = make_governor(main={})
    registry = with_registry(ledger, cooldowns={"account_validation": 90})
    example = AccountValidation.example()
    link = example.model_copy(update={"action_url": "https://school.example/a", "recipient": somebody()})
    first = wrap(link, tenant="school")
    answer = publish(ledger, registry, first)
    assert not isinstance(answer, InvalidEvent)
    again = publish(ledger, registry, first)
    assert getattr(again, "duplicate", None) is True
    refused = publish(ledger, registry, wrap(link, tenant="school"))
    assert isinstance(refused, InvalidEvent)
    assert (refused.code, refused.field) == ("cooldown", "data.recipient")
    assert refused.retry_after is not None
    assert 85 <= refused.retry_after <= 90
    for other in ({"recipient": somebody()}, {"purpose": "email_change"}):
        assert not isinstance(publish(ledger, registry, link.model_copy(update=other)), InvalidEvent)


def test_a_budget_is_spent_by_what_is_accepted_alone(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    form = {"recipients": ["office@school.example"], "per_hour": 2}
    registry = with_registry(ledger, forms={"contact": form, "other": form}, contact_per_hour=3)
    codes = [getattr(publish(ledger, registry, contact_form()), "field", "") for _ in range(5)]
    assert codes == ["", "", "data.form_id", "data.form_id", "data.form_id"]
    second = contact_form().model_copy(update={"form_id": "other"})
    answers = [publish(ledger, registry, second) for _ in range(2)]
    assert not isinstance(answers[0], InvalidEvent)
    refused = answers[1]
    assert isinstance(refused, InvalidEvent)
    assert (refused.code, refused.field) == ("budget_spent", "tenant")
    assert refused.retry_after is not None
    assert 3500 < refused.retry_after <= 3600
    assert len(all_of(ledger.worker().claim(8, 16)[1])) == 3


# --- what people see


def test_what_is_left_of_a_quota_and_when_it_frees_is_shown(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_day": 10, "per_hour": 6, "timezone": "Europe/Paris"}})
    set_clock(ledger, moment(2026, 6, 1, 12))
    ledger.publish_many(4, "main")
    send(ledger.worker())
    quota = standing(ledger)["quota"]
    midnight = moment(2026, 6, 1, 22).timestamp()
    assert quota["day"] == {"limit": 10, "left": 6, "frees_at": midnight}
    assert (quota["hour"]["left"], quota["counts"]) == (2, "mails")
    ledger.advance(11 * 3600)
    quota = standing(ledger)["quota"]
    assert (quota["day"]["left"], quota["hour"]["left"]) == (10, 6)
    ledger.worker().claim(0, 1)
    stop(ledger, "main")
    shown = standing(ledger)
    assert (shown["state"], shown["reason"], shown["words"]) == ("parked", "authentication_failed", "535")
    assert round(shown["until"] - shown["since"]) == 600
