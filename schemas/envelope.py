"""The envelope: one event on its way, with who publishes it, for whom, and when it is of use."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    Strict,
    StringConstraints,
    model_validator,
)

from postier.schemas.address import Address
from postier.schemas.events.base import Event, Moment, Recipient
from postier.schemas.events.registry import kind_named
from postier.schemas.text import OneLine, refusal

_ids = threading.Lock()
_last_id = 0


def new_event_id() -> str:
    """A fresh UUIDv7 (RFC 9562): sorts by time, rises strictly within a process, safe to call from any thread."""
    global _last_id
    random = int.from_bytes(os.urandom(10))
    with _ids:
        # 48 bits of milliseconds and 74 of chance as one number; within a millisecond it counts on.
        fresh = (time.time_ns() // 1_000_000) << 74 | random >> 6
        _last_id = fresh if fresh > _last_id else _last_id + 1 + (random & 0xFFFF_FFFF)
        number = _last_id
    milliseconds, high, low = number >> 74, number >> 62 & 0xFFF, number & (1 << 62) - 1
    digits = f"{milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _forget_ids() -> None:
    global _ids, _last_id
    _ids, _last_id = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    # Another thread may have held the lock at the fork, and two processes must not count on from the same id.
    os.register_at_fork(after_in_child=_forget_ids)


def _traceparent(value: str) -> str:
    version, trace, span, _ = value.split("-")
    if version == "ff" or not trace.strip("0") or not span.strip("0"):
        raise refusal("wrong_form", "this is no W3C traceparent")
    return value


def _now() -> datetime:
    return datetime.now(UTC)


EventId = Annotated[str, Strict(), StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
Name = Annotated[str, Strict(), StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Key = Annotated[str, OneLine(200, blank=False)]
Trace = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"),
    AfterValidator(_traceparent),
]


class Envelope(BaseModel):
    """One published event. Made by `postier.schemas.edge`, which also holds the limits; equal content compares equal.

    `id` is the producer's; `idempotency_key` (default: the id) makes publishing twice the same as once. `account`
    overrides routing. Nothing leaves before `not_before` or after `expires_at`. `supersedes` is a key of the
    producer's: a newer event with the same key takes the place of a waiting older one. `trace` is a W3C traceparent.
    """

    __slots__ = ("_body",)

    # Addresses and links come once: kept in a cache they would only fill the memory.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, cache_strings="keys")

    id: EventId = Field(default_factory=new_event_id)
    kind: Annotated[str, OneLine(64, blank=False)]
    schema_version: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    occurred_at: Moment = Field(default_factory=_now)
    tenant: Name
    source: Annotated[str, OneLine(255)] = ""
    idempotency_key: Key = Field(default_factory=lambda checked: checked.get("id", "-"))
    account: Name | None = None
    reply_to: Address | None = None
    not_before: Moment | None = None
    expires_at: Moment | None = None
    supersedes: Key | None = None
    trace: Trace | None = None
    data: SerializeAsAny[Event]

    @model_validator(mode="before")
    @classmethod
    def _read_data_as_its_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("data"), dict) and isinstance(value.get("kind"), str):
            event = kind_named(value["kind"]).model_validate(value["data"])
            value = {**value, "data": event}
        return value

    @model_validator(mode="after")
    def _fits_its_event(self) -> Self:
        if self.data.kind != self.kind:
            raise refusal("wrong_kind", "the data is an event of another kind")
        if self.not_before is not None and self.expires_at is not None and self.not_before >= self.expires_at:
            raise refusal("times", "not_before must be earlier than expires_at")
        return self

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Whom the producer chose; empty when the kind's recipients are configured (`edge.admit` knows those)."""
        return self.data.to()

    def data_json(self) -> bytes:
        """The event alone as UTF-8 JSON, for `edge.reopen`."""
        return self.data.model_dump_json().encode()

    def body(self) -> bytes:
        """The event as a delivery keeps it: what says nothing is left out."""
        kept: bytes | None = getattr(self, "_body", None)
        return self.data.model_dump_json(exclude_none=True).encode() if kept is None else kept

    def keep_body(self, body: bytes) -> None:
        """Spare `body` its work: the edge has it already. Copies of the envelope do not keep it."""
        object.__setattr__(self, "_body", body)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what makes the content; the same for a repeated publish, whenever and by whom.

        Fields at their default do not count, so an event keeps its fingerprint when its kind gains a field.
        """
        content = {name: value for name in _CONTENT if (value := getattr(self, name)) is not None}
        content["data"] = self.data.model_dump(mode="json", exclude_defaults=True)
        if self.not_before is not None or self.expires_at is not None:
            content.update(self.model_dump(mode="json", include=_TIMES, exclude_none=True))
        return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()

    def __repr_args__(self) -> Any:
        yield from (("id", self.id), ("kind", self.kind), ("tenant", self.tenant))


_CONTENT = ("kind", "tenant", "account", "reply_to", "supersedes")
_TIMES = {"not_before", "expires_at"}
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

NOT_BEFORE_LIMIT = timedelta(days=30)
