"""`account_validation`: someone must confirm that an account or an address is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from postier.schemas.events.base import EXAMPLE_TIME, Event, Moment, OneRecipient, Recipient
from postier.schemas.links import Link
from postier.schemas.text import OneLine


class AccountValidation(Event):
    """A confirmation link, with a code to type where links do not open. Never sent after it expires."""

    kind = "account_validation"
    priority = "urgent"
    deadline = timedelta(hours=24)
    on_unknown = "resend"
    sensitive = True
    cooldown = timedelta(seconds=60)
    sample = "someone signed up, was invited, changed their address or is asked to confirm it again"

    recipient: OneRecipient
    purpose: Literal["signup", "invite", "email_change", "recheck"]
    action_url: Link
    expires_at: Moment
    code: Annotated[str, OneLine(64, blank=False)] | None = None

    @classmethod
    def example(cls, at: datetime = EXAMPLE_TIME) -> Self:
        return cls(
            recipient=Recipient(address="nadia@example.org", name="Nadia Benali", locale="fr"),
            purpose="signup",
            action_url="https://school.example/welcome?token=example-only",
            expires_at=at + timedelta(hours=24),
            code="418 052",
        )

    def to(self) -> tuple[Recipient, ...]:
        return (self.recipient,)

    def cooldown_key(self) -> str:
        return self.purpose

    def links(self) -> Iterator[tuple[str, str]]:
        yield "action_url", self.action_url

    def expires(self) -> datetime | None:
        return self.expires_at
