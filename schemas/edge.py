"""The one hard edge: what is hostile is refused here, with the field and the reason, and nothing after it asks again.

Whatever comes in, only InvalidEvent goes out; its texts never repeat a value of the event.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, PydanticSerializationError

from postier.schemas.account import Registry
from postier.schemas.envelope import NOT_BEFORE_LIMIT, Envelope, Key, new_event_id
from postier.schemas.errors import InvalidEvent
from postier.schemas.events.base import Event, Recipient, each_once, is_as_checked
from postier.schemas.events.registry import KINDS, kind_named
from postier.schemas.links import check_link
from postier.schemas.refusals import MAX_EVENT, explain, too_large
from postier.schemas.strict_json import read_object

# CloudEvents 1.0 names and what they are called here; its other attributes are checked and have no further use.
_CLOUD_EVENTS = {"type": "kind", "time": "occurred_at", "traceparent": "trace"}
_NO_USE = {"datacontenttype", "dataschema", "specversion", "subject"}
_KEY: TypeAdapter[str] = TypeAdapter(Key)


def read_envelope(raw: bytes | str, *, tenant: str | None = None) -> Envelope:
    """The envelope that one JSON object describes.

    `tenant` is the tenant the producer is known to be: it fills a missing one and refuses another. Without an `id` one
    is derived from the content, so reading the same text twice gives the same id. Raises InvalidEvent.
    """
    given = _by_our_names(read_object(raw))
    if tenant is not None and given.setdefault("tenant", tenant) != tenant:
        raise InvalidEvent("this producer publishes for another tenant", field="tenant", code="wrong_tenant")
    kind = given.get("kind")
    if not isinstance(kind, str):
        reason, code = ("this field is needed", "missing") if kind is None else ("a text is needed", "wrong_type")
        raise InvalidEvent(reason, field="kind", code=code)
    shape = kind_named(kind)
    _refuse_later_version(given.setdefault("schema_version", shape.schema_version), shape)
    renamed = _take_recipients(given, shape)
    if "data" not in given:
        raise InvalidEvent("this field is needed", field="data", code="missing")
    given["data"] = _typed(shape, given["data"], renamed)
    if "id" not in given:
        given["id"] = _derived_id(given)
    return _envelope(given, len(raw))


def wrap(
    event: Event,
    *,
    tenant: str,
    account: str | None = None,
    idempotency_key: str | None = None,
    event_id: str | None = None,
    occurred_at: datetime | None = None,
    source: str = "",
    reply_to: str | None = None,
    not_before: datetime | None = None,
    expires_at: datetime | None = None,
    supersedes: str | None = None,
    trace: str | None = None,
) -> Envelope:
    """The envelope of an event made in Python, after the same checks as `read_envelope`, under a fresh sortable id.

    An event that is not as it was checked is checked again: copies of a model can be made without checks.
    Raises InvalidEvent.
    """
    shape = KINDS.get(str(getattr(event, "kind", "")))
    if shape is None or type(event) is not shape:
        raise InvalidEvent("this is not an event of a known kind", field="kind", code="unknown_kind")
    event, body, size = _checked_again(event, shape)
    rarely_said = (event_id, occurred_at, reply_to, not_before, expires_at, supersedes, trace)
    if body is not None and not [value for value in rarely_said if value is not None]:
        familiar = _familiar(event, body, tenant, account, source, idempotency_key)
        if familiar is not None:
            return familiar
    given: dict[str, Any] = {
        "id": new_event_id() if event_id is None else event_id,
        "kind": event.kind,
        "schema_version": event.schema_version,
        "tenant": tenant,
        "source": source,
        "data": event,
    }
    options = {
        "account": account,
        "idempotency_key": idempotency_key,
        "occurred_at": occurred_at,
        "reply_to": reply_to,
        "not_before": not_before,
        "expires_at": expires_at,
        "supersedes": supersedes,
        "trace": trace,
    }
    given.update((name, value) for name, value in options.items() if value is not None)
    envelope = _envelope(given, size)
    if body is not None:
        envelope.keep_body(body)
    return envelope


def admit(envelope: Envelope, registry: Registry, *, now: datetime | None = None) -> tuple[Recipient, ...]:
    """Who gets a mail for this event, after the checks that need the tenant's configuration and the time.

    Raises InvalidEvent: unknown tenant, account or form, a link on a host the tenant does not allow, an event that is
    over, or one for a time too far away.
    """
    tenant = registry.tenants.get(envelope.tenant)
    if tenant is None:
        none = "no tenant is known yet: workers tell of those of their accounts file when they start"
        reason = "no tenant has this name" if registry.tenants else none
        raise InvalidEvent(reason, field="tenant", code="unknown_tenant")
    if envelope.account is not None:
        account = registry.accounts.get(envelope.account)
        if account is None or account.tenant not in (None, envelope.tenant):
            raise InvalidEvent("this tenant has no account of that name", field="account", code="unknown_account")
    for field, url in envelope.data.links():
        try:
            check_link(url, tenant.allowed_hosts)
        except PydanticCustomError as error:
            raise InvalidEvent(error.message(), field=f"data.{field}", code=error.type) from None
    _check_times(envelope, now or datetime.now(UTC))
    form_id = envelope.data.form()
    if form_id is None:
        return envelope.data.to()
    form = tenant.forms.get(form_id)
    if form is None:
        raise InvalidEvent("this tenant has no form of that name", field="data.form_id", code="unknown_form")
    return each_once(tuple(Recipient(address=address) for address in form.recipients))


def reopen(kind: str, schema_version: int, data: bytes) -> Event:
    """The event a worker finds in the ledger. Fields this version does not know are ignored.

    Raises InvalidEvent with the code `unknown_kind`, `unknown_version` or `undecodable`.
    """
    shape = kind_named(kind)
    _refuse_later_version(schema_version, shape)
    try:
        return shape.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        found = explain(error, "data")
    except (TypeError, RecursionError):
        found = InvalidEvent("this is no JSON text")
    raise InvalidEvent(found.reason, field=found.field or "data", code="undecodable")


def _by_our_names(given: dict[str, Any]) -> dict[str, Any]:
    for theirs, ours in _CLOUD_EVENTS.items():
        if theirs in given:
            if ours in given:
                raise InvalidEvent(f"this is said twice, also as {ours}", field=theirs, code="said_twice")
            given[ours] = given.pop(theirs)
    for name in _NO_USE & given.keys():
        value = given.pop(name)
        if not isinstance(value, str):
            raise InvalidEvent("a text is needed", field=name, code="wrong_type")
        if name == "specversion" and value != "1.0":
            raise InvalidEvent("only CloudEvents 1.0 is read", field=name, code="unknown_version")
        if name == "datacontenttype" and value.partition(";")[0].strip().lower() != "application/json":
            raise InvalidEvent("the data must be application/json", field=name, code="wrong_type")
    return given


def _refuse_later_version(version: Any, shape: type[Event]) -> None:
    if isinstance(version, int) and version > shape.schema_version:
        raise InvalidEvent(
            f"this is a later version than {shape.schema_version}, the latest known here",
            field="schema_version",
            code="unknown_version",
        )


def _take_recipients(given: dict[str, Any], shape: type[Event]) -> bool:
    """Move `recipients` of the envelope into data, where kinds keep them; True when they came from the envelope."""
    if "recipients" not in given:
        return False
    recipients, data = given.pop("recipients"), given.get("data")
    many, one = "recipients" in shape.model_fields, "recipient" in shape.model_fields
    if not many and not one:
        reason = "the recipients of this kind are configured, not chosen by the producer"
        raise InvalidEvent(reason, field="recipients", code="recipients_not_taken")
    if not isinstance(recipients, list):
        raise InvalidEvent("a list is needed", field="recipients", code="wrong_type")
    if one and not many and len(recipients) != 1:
        raise InvalidEvent("this kind has exactly one recipient", field="recipients", code="one_recipient")
    if not isinstance(data, dict):
        return False
    name, value = ("recipients", recipients) if many else ("recipient", recipients[0])
    if name not in data:
        data[name] = value
        return True
    if data[name] != value:
        raise InvalidEvent(f"data.{name} says something else", field="recipients", code="said_twice")
    return False


def _typed(shape: type[Event], data: Any, from_envelope: bool) -> Event:
    if not isinstance(data, dict):
        raise InvalidEvent("an object is needed", field="data", code="wrong_type")
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        refused = explain(error, "data")
    if from_envelope and refused.field.startswith("data.recipient"):
        one = "recipient" in shape.model_fields
        at = refused.field.removeprefix("data.recipient" if one else "data.recipients")
        refused = InvalidEvent(
            refused.reason, field=f"recipients.0{at}" if one else f"recipients{at}", code=refused.code
        )
    raise refused


def _checked_again(event: Event, shape: type[Event]) -> tuple[Event, bytes | None, int]:
    """The event as it passed its checks, its JSON for workers when that was made on the way, and its size."""
    if is_as_checked(event):
        body = event.model_dump_json(exclude_none=True).encode()
        # Its nulls would add far less than what is left above the first quarter.
        if len(body) <= MAX_EVENT // 4:
            return event, body, len(body)
    try:
        raw = event.model_dump_json(warnings=False).encode()
        if len(raw) <= MAX_EVENT:
            return shape.model_validate_json(raw), None, len(raw)
        refused = too_large()
    except ValidationError as error:
        refused = explain(error, "data")
    except (PydanticSerializationError, AttributeError, ValueError):
        refused = InvalidEvent("this event is not complete", field="data", code="invalid")
    raise refused


def _familiar(
    event: Event, body: bytes, tenant: str, account: str | None, source: str, key: str | None
) -> Envelope | None:
    """The envelope, when all but its key was checked for an earlier event; None leaves it to the long way."""
    if not (type(tenant) is type(source) is str and (account is None or type(account) is str)):
        return None
    identity = new_event_id()
    try:
        known = _known(type(event), tenant, account, source)
        key = identity if key is None else _KEY.validate_python(key)
    except (InvalidEvent, ValidationError):
        return None
    fresh = {"id": identity, "idempotency_key": key, "occurred_at": datetime.now(UTC), "data": event}
    envelope = known.model_copy(update=fresh)
    envelope.keep_body(body)
    return envelope


@lru_cache(maxsize=256)
def _known(shape: type[Event], tenant: str, account: str | None, source: str) -> Envelope:
    given = {"kind": shape.kind, "schema_version": shape.schema_version, "data": shape.example()}
    return _envelope({**given, "tenant": tenant, "account": account, "source": source}, 0)


def _envelope(given: dict[str, Any], size: int) -> Envelope:
    try:
        envelope = Envelope.model_validate(given)
    except ValidationError as error:
        refused = explain(error)
    else:
        # What is filled in and the envelope's own fields add far less than what is left above the first quarter.
        if size <= MAX_EVENT // 4 or len(envelope.model_dump_json().encode()) <= MAX_EVENT:
            return envelope
        refused = too_large()
    raise refused


def _derived_id(given: dict[str, Any]) -> str:
    """The same id for the same text: 160 bits of a digest over all that the producer said, whatever our version."""
    said = {name: value for name, value in given.items() if name not in ("data", "schema_version")}
    said["data"] = given["data"].model_dump(mode="json", exclude_defaults=True)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return f"c-{digest[:40]}"


def _check_times(envelope: Envelope, now: datetime) -> None:
    event_expires = envelope.data.expires()
    for field, expires in (("expires_at", envelope.expires_at), ("data.expires_at", event_expires)):
        if expires is None:
            continue
        if expires <= now:
            raise InvalidEvent("this time has passed", field=field, code="already_expired")
        if envelope.not_before is not None and envelope.not_before >= expires:
            raise InvalidEvent(f"this must be earlier than {field}", field="not_before", code="times")
    if envelope.not_before is not None and envelope.not_before - now > NOT_BEFORE_LIMIT:
        raise InvalidEvent("this is more than 30 days away", field="not_before", code="too_far")
