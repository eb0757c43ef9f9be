"""Reading, wrapping, admitting and reopening events that are as they should be, or nearly so."""

from __future__ import annotations

import json
import pickle
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from postier.schemas.account import Registry
from postier.schemas.edge import admit, read_envelope, reopen, wrap
from postier.schemas.envelope import Envelope, new_event_id
from postier.schemas.errors import InvalidEvent
from postier.schemas.events import KINDS, ContactForm, DataChange, Event, Recipient, ResetLink
from postier.schemas.events.base import is_as_checked
from postier.schemas.refusals import explain

SOON = datetime.now(UTC) + timedelta(hours=12)  # a whole run of the tests lies before it


def reset(**changed: Any) -> ResetLink:
    fields = {"recipient": "sam@example.org", "code": "123", "requested_at": datetime.now(UTC), "expires_at": SOON}
    return ResetLink(**{**fields, **changed})


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_survives_the_way_to_a_worker(kind: str, registry: Registry) -> None:
    event = KINDS[kind].example()
    wrapped = wrap(event, tenant="school", source="/shop", supersedes="x")
    read = read_envelope(wrapped.model_dump_json())
    assert read == wrapped
    assert Envelope.model_validate_json(wrapped.model_dump_json()) == wrapped
    assert reopen(kind, event.schema_version, read.data_json()) == event
    assert admit(read, registry)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_has_the_same_id_and_another_text_has_not(kind: str) -> None:
    text = {"kind": kind, "tenant": "school", "data": json.loads(KINDS[kind].example().model_dump_json())}
    first, again = read_envelope(json.dumps(text)), read_envelope(json.dumps(text, indent=1))
    other = read_envelope(json.dumps({**text, "source": "/elsewhere"}))
    assert first.id == again.id == first.idempotency_key
    assert first.id != other.id
    assert first.fingerprint() == again.fingerprint() == other.fingerprint()


def test_a_fingerprint_covers_the_content_and_nothing_else() -> None:
    event = reset()
    base = wrap(event, tenant="school").fingerprint()
    same = wrap(event, tenant="school", event_id="e1", source="/x", idempotency_key="k", occurred_at=SOON)
    assert same.fingerprint() == base
    others = [
        wrap(reset(code="124"), tenant="school"),
        wrap(event, tenant="shop"),
        wrap(event, tenant="school", account="main"),
        wrap(event, tenant="school", reply_to="a@example.org"),
        wrap(event, tenant="school", expires_at=SOON),
        wrap(event, tenant="school", not_before=SOON - timedelta(minutes=5)),
        wrap(event, tenant="school", supersedes="x"),
    ]
    assert len({base, *(other.fingerprint() for other in others)}) == 8


@pytest.mark.parametrize(
    ("kind", "alone", "with_options"),
    [
        ("account_validation", "c997eedc528e50f4", "e7a6f8578a8d4a4e"),
        ("contact_form", "fd7492acc976acd7", "8637831b124c3572"),
        ("data_change", "e66f7d0b72cc36f0", "eaae9148de6e9f4a"),
        ("reset_link", "294ed371e90d2bf3", "49f76fa9af1d1ea6"),
        ("sender_confirmation", "e5c7ec9582d0df61", "388c4352d043074c"),
    ],
)
def test_a_fingerprint_is_what_earlier_releases_made_of_the_same_content(
    kind: str, alone: str, with_options: str
) -> None:
    event, at = KINDS[kind].example(), datetime(2099, 1, 5, 9, 30, 0, 120, tzinfo=UTC)
    options: dict[str, Any] = {"account": "main", "reply_to": "a@example.org", "supersedes": "é"}
    later = wrap(event, tenant="school", not_before=at, expires_at=at + timedelta(hours=1), **options)
    assert wrap(event, tenant="school").fingerprint().startswith(alone)
    assert later.fingerprint().startswith(with_options)


def test_one_instant_in_two_time_zones_is_one_content() -> None:
    paris = SOON.astimezone(timezone(timedelta(hours=2)))
    asked = datetime.now(UTC)
    one, other = reset(requested_at=asked), reset(requested_at=asked, expires_at=paris)
    assert wrap(one, tenant="school").fingerprint() == wrap(other, tenant="school").fingerprint()


def test_cloudevents_names_are_understood(examples: dict[str, str]) -> None:
    ours = json.loads(examples["reset_link"])
    theirs = {
        "specversion": "1.0",
        "type": ours["kind"],
        "time": ours["occurred_at"],
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "subject": "password",
        "datacontenttype": "application/json; charset=utf-8",
        "dataschema": "https://school.example/schema",
        "source": "/shop",
        **{name: ours[name] for name in ("id", "tenant", "data")},
    }
    read = read_envelope(json.dumps(theirs))
    assert (read.id, read.kind, read.source) == (ours["id"], "reset_link", "/shop")
    assert read.trace == theirs["traceparent"]
    assert json.loads(read.model_dump_json())["occurred_at"] == ours["occurred_at"]


def test_recipients_on_the_envelope_fill_the_data(examples: dict[str, str]) -> None:
    single, several = json.loads(examples["reset_link"]), json.loads(examples["data_change"])
    single["recipients"] = [single["data"].pop("recipient")]
    several["recipients"] = several["data"].pop("recipients")
    assert read_envelope(json.dumps(single)) == read_envelope(examples["reset_link"])
    assert read_envelope(json.dumps(several)) == read_envelope(examples["data_change"])


@pytest.mark.parametrize(
    ("kind", "field"), [("reset_link", "recipients.0.address"), ("data_change", "recipients.1.address")]
)
def test_a_refusal_names_the_place_the_producer_wrote(kind: str, field: str, examples: dict[str, str]) -> None:
    envelope = json.loads(examples[kind])
    envelope["data"].pop("recipient", envelope["data"].pop("recipients", None))
    envelope["recipients"] = ["a@example.org", "nowhere"][-int(kind == "reset_link") :]
    with pytest.raises(InvalidEvent) as caught:
        read_envelope(json.dumps(envelope))
    assert caught.value.field == field


def test_a_known_producer_fills_its_tenant_and_may_not_name_another(examples: dict[str, str]) -> None:
    envelope = json.loads(examples["reset_link"])
    del envelope["tenant"]
    assert read_envelope(json.dumps(envelope), tenant="school").tenant == "school"
    with pytest.raises(InvalidEvent) as caught:
        read_envelope(examples["reset_link"], tenant="shop")
    assert (caught.value.field, caught.value.code) == ("tenant", "wrong_tenant")


def test_a_reset_link_needs_a_link_or_a_code(examples: dict[str, str]) -> None:
    envelope = json.loads(examples["reset_link"])
    del envelope["data"]["action_url"], envelope["data"]["code"]
    with pytest.raises(InvalidEvent) as caught:
        read_envelope(json.dumps(envelope))
    assert (caught.value.field, caught.value.code) == ("data", "missing")
    assert "action_url or code" in caught.value.reason


@pytest.mark.parametrize(
    "event",
    [
        ContactForm.example().model_copy(update={"subject": "Hi\nBcc: x@evil.example"}),
        DataChange.example().model_copy(update={"recipients": ()}),
        ResetLink.example().model_copy(update={"recipient": "a\r\nb"}),
        ResetLink.model_construct(code="1"),  # type: ignore[call-arg]
    ],
)
def test_an_event_changed_behind_its_checks_is_refused_by_wrap(event: Event) -> None:
    with pytest.raises(InvalidEvent) as caught:
        wrap(event, tenant="school")
    assert caught.value.field.startswith("data")


def _forged(change: Any, event: Event | None = None) -> Event:
    event = event or DataChange.example()
    change(event)
    return event


class _Loose(Recipient):
    address: str  # without its checks


@pytest.mark.parametrize(
    "event",
    [
        _forged(lambda event: event.__dict__.update(actor="a\nb")),
        _forged(lambda event: object.__setattr__(event, "recipients", ())),
        _forged(lambda event: object.__setattr__(event, "changed_at", datetime(2099, 1, 1))),
        _forged(lambda event: event.recipients[1].__dict__.update(address="a\r\nb")),
        _forged(lambda event: event.entity.__dict__.update(url="http://127.0.0.1/")),
        _forged(lambda event: event.changes[2].__dict__.update(masked=None)),
        reset(recipient=Recipient.model_construct(address="a\r\nb")),
        reset(recipient=Recipient(address="a@example.org").model_copy(update={"name": "a\nb"})),
        reset(recipient=_Loose(address="a\r\nb")),
        _forged(lambda event: event.__dict__.update(code=None, ip="192.0.2.4"), reset()),
    ],
)
def test_an_event_that_was_checked_and_then_forged_is_refused_as_its_text_would_be(event: Event) -> None:
    with pytest.raises(ValidationError) as expected:
        type(event).model_validate_json(event.model_dump_json(warnings=False))
    with pytest.raises(InvalidEvent) as caught:
        wrap(event, tenant="school")
    wanted = explain(expected.value, "data")
    assert (caught.value.field, caught.value.code) == (wanted.field, wanted.code)


@pytest.mark.parametrize("options", [{}, {"account": "main"}, {"idempotency_key": "k", "source": "/x"}])
@pytest.mark.parametrize("kind", KINDS)
def test_an_event_as_it_was_checked_becomes_what_a_second_check_would_make_of_it(
    kind: str, options: dict[str, Any]
) -> None:
    event = KINDS[kind].example()
    copied = event.model_copy()
    assert is_as_checked(event)
    assert not is_as_checked(copied)
    short, long = wrap(event, tenant="school", **options), wrap(copied, tenant="school", **options)
    alike = {"id": long.id, "idempotency_key": long.idempotency_key, "occurred_at": long.occurred_at}
    assert short.model_copy(update=alike) == long
    assert short.idempotency_key == options.get("idempotency_key", short.id)
    assert Envelope.model_validate_json(short.model_dump_json()) == short
    assert short.body() == long.body() == short.model_copy().body()
    assert short.fingerprint() == long.fingerprint()


def test_only_parts_made_here_are_taken_as_checked() -> None:
    class Elsewhere(Recipient):
        name: str = ""

    assert is_as_checked(Recipient(address="a@example.org"))
    assert not is_as_checked(Elsewhere(address="a@example.org"))
    assert not is_as_checked(reset(recipient=Elsewhere(address="a@example.org")))
    assert not is_as_checked(reset(recipient=Recipient.model_construct(address="a@example.org")))
    assert not is_as_checked(reset(recipient=Recipient(address="a@example.org").model_copy()))
    for change in ({"more": "x"}, {"code": "456"}, {"code": None}, {"kind": "data_change"}):
        assert not is_as_checked(_forged(lambda event, change=change: event.__dict__.update(change), reset()))
    assert not is_as_checked(_forged(lambda event: event.__dict__.pop("ip"), reset()))
    assert not is_as_checked(pickle.loads(pickle.dumps(reset())))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tenant": "No Tenant"}, "tenant"),
        ({"tenant": "No Tenant", "idempotency_key": ""}, "tenant"),
        ({"tenant": ["school"]}, "tenant"),
        ({"source": None}, "source"),
        ({"account": 7}, "account"),
        ({"idempotency_key": 7}, "idempotency_key"),
        ({"idempotency_key": "a\nb"}, "idempotency_key"),
        ({"account": "a\n"}, "account"),
        ({"event_id": ""}, "id"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"source": "a\nb"}, "source"),
        ({"reply_to": "nobody"}, "reply_to"),
        ({"not_before": datetime(2099, 1, 1)}, "not_before"),
        ({"supersedes": " "}, "supersedes"),
        ({"trace": "1"}, "trace"),
        ({"occurred_at": 7}, "occurred_at"),
        ({"not_before": SOON, "expires_at": SOON}, ""),
    ],
)
def test_wrap_refuses_what_reading_refuses(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        wrap(reset(), **{"tenant": "school", **options})
    assert caught.value.field == field


def test_wrap_refuses_what_is_no_event_of_a_known_kind() -> None:
    class Unregistered(ResetLink):
        kind = "unregistered"

    for stranger in (Unregistered.example(), object(), None):
        with pytest.raises(InvalidEvent) as caught:
            wrap(stranger, tenant="school")  # type: ignore[arg-type]
        assert caught.value.code == "unknown_kind"


def test_wrap_refuses_an_event_that_is_too_large() -> None:
    event = ContactForm.example().model_copy(update={"message": "é" * 140_000})
    with pytest.raises(InvalidEvent) as caught:
        wrap(event, tenant="school")
    assert caught.value.code == "too_large"


def test_an_expired_event_is_not_admitted(registry: Registry) -> None:
    past = reset(requested_at=SOON - timedelta(days=2), expires_at=SOON - timedelta(days=1))
    for envelope, field in (
        (wrap(past, tenant="school"), "data.expires_at"),
        (wrap(reset(), tenant="school", expires_at=SOON - timedelta(days=1)), "expires_at"),
    ):
        with pytest.raises(InvalidEvent) as caught:
            admit(envelope, registry)
        assert (caught.value.field, caught.value.code) == (field, "already_expired")


def test_nothing_waits_for_longer_than_30_days(registry: Registry) -> None:
    event = DataChange.example()
    now = datetime.now(UTC)
    assert admit(wrap(event, tenant="school", not_before=now + timedelta(days=30)), registry, now=now)
    with pytest.raises(InvalidEvent) as caught:
        admit(wrap(event, tenant="school", not_before=now + timedelta(days=30, seconds=1)), registry, now=now)
    assert (caught.value.field, caught.value.code) == ("not_before", "too_far")


def test_a_link_on_a_host_of_another_tenant_is_not_admitted(registry: Registry) -> None:
    with pytest.raises(InvalidEvent) as caught:
        admit(wrap(reset(action_url="https://shop.example/x"), tenant="school"), registry)
    assert (caught.value.field, caught.value.code) == ("data.action_url", "link_not_allowed")


def test_a_contact_form_goes_to_its_configured_addresses_each_once(registry: Registry) -> None:
    envelope = wrap(ContactForm.example(), tenant="school")
    assert envelope.recipients == ()
    assert admit(envelope, registry) == (Recipient(address="office@school.example"),)


def test_a_subscriber_named_twice_gets_one_mail() -> None:
    event = DataChange.example().model_copy(
        update={"recipients": (Recipient(address="a@example.org", locale="fr"), Recipient(address="A@EXAMPLE.org"))}
    )
    assert event.to() == (Recipient(address="a@example.org", locale="fr"),)


def test_reopen_ignores_fields_of_a_later_release_at_any_depth() -> None:
    stored = json.loads(DataChange.example().model_dump_json())
    stored["new"] = stored["entity"]["new_thing"] = stored["recipients"][0]["new"] = stored["changes"][0]["why"] = 1
    assert reopen("data_change", 1, json.dumps(stored).encode()) == DataChange.example()


@pytest.mark.parametrize(
    ("kind", "version", "data", "code"),
    [
        ("nothing", 1, b"{}", "unknown_kind"),
        ("reset_link", 2, b"{}", "unknown_version"),
        ("reset_link", 1, b"{}", "undecodable"),
        ("reset_link", 1, b"\xff\xfe", "undecodable"),
        ("reset_link", 1, b"[" * 100_000, "undecodable"),
        ("reset_link", 1, b'{"recipient":"\\ud800"}', "undecodable"),
    ],
)
def test_reopen_says_why_it_cannot(kind: str, version: int, data: bytes, code: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        reopen(kind, version, data)
    assert caught.value.code == code


def test_ids_rise_within_a_process_over_all_threads() -> None:
    found: list[list[str]] = []

    def make() -> None:
        found.append([new_event_id() for _ in range(2000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in found)
    assert len({one for own in found for one in own}) == 8000
    assert all(one[14] == "7" and one[19] in "89ab" for one in found[0])


def test_nothing_of_an_event_shows_in_its_repr_or_in_errors() -> None:
    event = reset(code="s3cr3t", action_url="https://school.example/t0ken")
    envelope = wrap(event, tenant="school", reply_to="reply@example.org")
    shown = repr(event) + repr(envelope) + str(envelope) + repr(envelope.recipients)
    with pytest.raises(ValidationError) as caught:
        reset(code="s3cr3t\n", device=5, recipient="reply@")
    shown += str(caught.value)
    for secret in ("s3cr3t", "t0ken", "reply@", "sam@example"):
        assert secret not in shown


def test_a_newer_reset_link_takes_the_place_of_an_older_one_for_the_same_person_only() -> None:
    one, other = reset(), reset(recipient="SAM@Example.org", code="9")
    key = one.supersede_key(one.recipient)
    assert key is not None
    assert key == other.supersede_key(other.recipient)
    assert key != one.supersede_key(Recipient(address="sam@example.com"))
    assert "sam" not in key
    assert DataChange.example().supersede_key(one.recipient) is None
