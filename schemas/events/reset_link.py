"""`reset_link`: someone asked for a way back into their account."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from postier.schemas.events.base import EXAMPLE_TIME, Event, Moment, OneRecipient, Recipient, recipient_key
from postier.schemas.links import Link
from postier.schemas.text import OneLine, refusal

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}\Z")


def _internet_address(value: str) -> str:
    if _PLAIN.match(value):
        return value
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        found = None
    if found is None or "%" in value:
        raise refusal("ip_invalid", "an IP address reads 192.0.2.1 or 2001:db8::1")
    return str(found)


class ResetLink(Event):
    """A link or a code (at least one) to set a new password. A newer one takes the place of a waiting older one."""

    kind = "reset_link"
    priority = "urgent"
    deadline = timedelta(hours=24)
    on_unknown = "resend"
    sensitive = True
    sample = "someone forgot their password"

    recipient: OneRecipient
    requested_at: Moment
    expires_at: Moment
    action_url: Link | None = None
    code: Annotated[str, OneLine(64, blank=False)] | None = None
    ip: Annotated[str, Field(max_length=45), AfterValidator(_internet_address)] | None = None
    device: Annotated[str, OneLine(512)] | None = None

    @model_validator(mode="after")
    def _has_a_way_in(self) -> Self:
        if self.action_url is None and self.code is None:
            raise refusal("missing", "action_url or code is needed")
        if self.expires_at <= self.requested_at:
            raise refusal("times", "expires_at must be later than requested_at")
        return self

    @classmethod
    def example(cls, at: datetime = EXAMPLE_TIME) -> Self:
        return cls(
            recipient=Recipient(address="sam@example.org", name="Sam Okafor", locale="en"),
            requested_at=at,
            expires_at=at + timedelta(hours=1),
            action_url="https://school.example/reset?token=example-only",
            code="731 946",
            ip="192.0.2.44",
            device="Firefox on Linux",
        )

    def to(self) -> tuple[Recipient, ...]:
        return (self.recipient,)

    def links(self) -> Iterator[tuple[str, str]]:
        if self.action_url is not None:
            yield "action_url", self.action_url

    def expires(self) -> datetime | None:
        return self.expires_at

    def supersede_key(self, recipient: Recipient) -> str | None:
        return recipient_key(self.kind, recipient)
