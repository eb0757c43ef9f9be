"""T8, T9, T10, T11, T30: over several steps, no tenant and no visitor gets at what is another's."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postier.ledger.inbox import RefusedEvents
from postier.schemas.address import address_key, parse_address
from tests.attacks.kit import Yard, bent
from tests.conftest import until

_numbers = itertools.count(1)


def reset(address: str = "", **envelope: Any) -> dict[str, Any]:
    changes = {"data.recipient": address or f"person-{next(_numbers)}@example.org"}
    return bent("reset_link", changes, **envelope)


def shop(address: str = "", **envelope: Any) -> dict[str, Any]:
    made = reset(address, **envelope)
    made["tenant"] = "shop"
    made["data"]["action_url"] = "https://shop.example/reset"
    return made


def accepted(answer: dict[str, Any]) -> list[str]:
    assert "error" not in answer, answer
    return list(answer["deliveries"])


def test_the_same_key_of_two_tenants_stands_for_two_events(yard: Yard) -> None:
    first, second, again = yard.publish(
        [
            reset(idempotency_key="shared"),
            shop(idempotency_key="shared"),
            shop("x@example.org", idempotency_key="shared"),
        ]
    )
    assert not first["duplicate"]
    assert not second["duplicate"]
    assert set(accepted(first)) & set(accepted(second)) == set()
    assert again["error"]["code"] == "idempotency_conflict"
    assert first["deliveries"][0] not in json.dumps(again)


@pytest.mark.parametrize("key", [
    "school:shared-2", "shop:x", "key:school:shared-2", "}:key", "{yard}:key:school:x", "a b", "a,b", "*", "[a-z]",
    "'", '"', "\\",
    "$ne", "../x", "e-1 e-2 e-3", "é", "key\u00a0key", "-", "%s", "0",
])  # fmt: skip
def test_no_key_reaches_another_tenants_or_another_kind_of_record(key: str, yard: Yard) -> None:
    """Keys of Redis are made of these words: each must stand for itself alone."""
    theirs = accepted(yard.publish([shop(idempotency_key=key, id=f"shop-{next(_numbers)}")])[0])
    ours = yard.publish([reset(idempotency_key=key, supersedes=key, id=f"ours-{next(_numbers)}")])[0]
    assert not ours["duplicate"]
    mine = accepted(ours)
    yard.wait_for_the_end([*theirs, *mine])
    assert yard.status(theirs[0]).tenant == "shop"
    assert yard.status(theirs[0]).state == yard.status(mine[0]).state == "sent"
    new = [k.decode("utf-8", "replace") for k in yard.store.redis.scan_iter(count=10_000)]
    assert all(k.startswith("{") for k in new)
    assert yard.queries.deliveries_of("school", key) == mine
    assert yard.queries.deliveries_of("shop", key) == theirs


def test_a_supersedes_key_of_one_tenant_withdraws_nothing_of_another(yard: Yard) -> None:
    (waiting,) = accepted(yard.publish([shop(supersedes="a-key", **tomorrow())])[0])
    accepted(yard.publish([reset(supersedes="a-key")])[0])
    assert yard.status(waiting).state == "waiting"
    accepted(yard.publish([shop(supersedes="a-key")])[0])
    until(lambda: yard.status(waiting).state == "discarded")


def tomorrow() -> dict[str, str]:
    return {"not_before": (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")}


def test_an_event_id_that_is_somebody_elses_delivery_takes_nothing_over(yard: Yard) -> None:
    (theirs,) = accepted(yard.publish([shop()])[0])
    yard.wait_for_the_end([theirs])
    before = yard.store.redis.hgetall(yard.store.key(f"delivery:{theirs}"))
    (mine,) = accepted(yard.publish([reset(id=theirs)])[0])
    assert mine != theirs
    yard.wait_for_the_end([mine])
    assert yard.store.redis.hgetall(yard.store.key(f"delivery:{theirs}")) == before


def test_a_producer_bound_to_a_tenant_publishes_for_no_other(yard: Yard) -> None:
    wrong, right = yard.publish([shop(), reset()], "bound", "--tenant", "school")
    assert wrong["error"]["code"] == "wrong_tenant"
    accepted(right)


def test_no_tenant_sends_by_anothers_account_or_form(yard: Yard) -> None:
    stranger = bent("contact_form", {"data.form_id": "contact"}, id=f"stranger-{next(_numbers)}")
    stranger["tenant"] = "shop"
    answers = yard.publish([reset(account="shop"), stranger])
    assert [answer["error"]["code"] for answer in answers] == ["unknown_account", "unknown_form"]
    (own,) = accepted(yard.publish([shop()])[0])
    yard.wait_for_the_end([own])
    (mail,) = [mail for mail in yard.shop.mails if mail.delivery == own]
    assert mail.mail_from == "post@shop.example"
    assert not [mail for mail in yard.shop.mails if b"school.example>" in mail.octets.partition(b"\r\n\r\n")[0]]


def test_a_visitor_is_answered_and_never_written_to(yard: Yard) -> None:
    form = bent("contact_form", {"data.visitor.address": "victim@z.example"}, id="form-1", reply_to="other@z.example")
    (identity,) = accepted(yard.publish([form])[0])
    yard.wait_for_the_end([identity])
    (mail,) = [mail for mail in yard.mails() if mail.delivery == identity]
    assert mail.rcpts == ("office@school.example",)
    assert b"other@z.example" not in mail.octets
    head = mail.octets.partition(b"\r\n\r\n")[0]
    assert head.count(b"victim@z.example") == 1
    assert b"\r\nReply-To: " in head


def test_a_flood_of_forms_ends_at_the_forms_budget(yard: Yard) -> None:
    flood = [bent("contact_form", {"data.form_id": "sales"}, id=f"flood-{n}") | {"tenant": "shop"} for n in range(80)]
    answers = yard.publish(flood)
    spent = [answer["error"] for answer in answers if "error" in answer]
    assert len(spent) == 20  # a form without a budget of its own takes 60 an hour
    assert {one["code"] for one in spent} == {"budget_spent"}
    again = yard.publish([event | {"idempotency_key": f"other-{n}"} for n, event in enumerate(flood[:5])])
    assert all("error" in answer for answer in again)


HOMOGRAPHS = [
    ("admin@example.org", "ađmin@example.org"),
    ("admin@example.org", "аdmin@example.org"),
    ("mike@example.org", "mıke@example.org"),
    ("strasse@example.org", "straße@example.org"),
    ("kim@example.org", "κim@example.org"),
    ("ii@example.org", "íi@example.org"),
    ("a@paypal.example", "a@pаypal.example"),
    ("a@cloud.example", "a@clоud.example"),
    ("a@iris.example", "a@ırıs.example"),
    ("a@strasse.example", "a@straße.example"),
    ("a@google.example", "a@gooġle.example"),
    ("a@sigmas.example", "a@ѕigmas.example"),
]


@pytest.mark.parametrize(("real", "alike"), HOMOGRAPHS)
def test_look_alikes_are_two_people(real: str, alike: str) -> None:
    try:
        parsed = parse_address(alike)
    except ValueError:
        return
    assert address_key(parsed) != address_key(parse_address(real))
    assert "xn--" in parsed or not parsed.partition("@")[0].isascii()


def test_look_alikes_in_one_list_get_a_mail_each(yard: Yard) -> None:
    people = ["admin@example.org", "аdmin@example.org", "ADMIN@EXAMPLE.org", "admin@exаmple.org"]
    (answer,) = yard.publish([bent("data_change", {"data.recipients": people}, id="alike-1")])
    ids = accepted(answer)
    assert len(ids) == 3  # capitals alone make nobody else
    yard.wait_for_the_end(ids)
    assert len({mail.rcpts for mail in yard.mails() if mail.delivery in ids}) == 3


def test_an_international_address_is_not_mangled_for_a_server_that_cannot_take_it(yard: Yard) -> None:
    taken, refused, coded = (
        accepted(yard.publish([reset(address, account=name)])[0])[0]
        for address, name in (
            ("élève@example.org", "main"),
            ("zoë@example.org", "ascii"),
            ("a@café.example", "ascii"),
        )
    )
    ends = yard.wait_for_the_end([taken, refused, coded])
    assert ends == {taken: "sent", refused: "failed", coded: "sent"}
    assert yard.status(refused).cause == "no_smtputf8"
    assert not [mail for mail in yard.ascii_only.mails if not mail.octets.isascii()]
    (mail,) = [mail for mail in yard.ascii_only.mails if mail.delivery == coded]
    assert mail.rcpts == ("a@xn--caf-dma.example",)
    options = [
        given for mail, given in zip(yard.strict.mails, yard.strict.options, strict=True) if mail.delivery == taken
    ]
    assert "SMTPUTF8" in options[0]


def test_the_inbox_is_held_to_the_same_rules(yard: Yard) -> None:
    refused = RefusedEvents(yard.store, yard.settings.sealer())
    push = [
        json.dumps(event).encode()
        for event in (
            reset(account="shop", id="inbox-1"),
            bent("contact_form", {"data.form_id": "contact"}, id="inbox-2") | {"tenant": "shop"},
            shop(id="inbox-3", idempotency_key="inbox-key"),
            reset(id="inbox-4", idempotency_key="inbox-key"),
        )
    ]
    before = len(refused.find(10_000))
    yard.store.redis.rpush(yard.store.key("inbox"), *push)
    until(lambda: len(refused.find(10_000)) == before + 2)
    codes = [one.error["code"] for one in refused.find(2)]
    assert sorted(codes) == ["unknown_account", "unknown_form"]
    until(lambda: yard.queries.deliveries_of("school", "inbox-key"))
    until(lambda: yard.queries.deliveries_of("shop", "inbox-key"))
