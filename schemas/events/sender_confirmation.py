"""`sender_confirmation`: the owner of an address is asked whether mail may leave in its name. Published by postier."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Self

from postier.schemas.events.base import EXAMPLE_TIME, Event, Moment, OneRecipient, Recipient, recipient_key
from postier.schemas.links import Link
from postier.schemas.text import OneLine


class SenderConfirmation(Event):
    """A link to the page where the owner says yes. A newer one takes the place of a waiting older one."""

    kind = "sender_confirmation"
    priority = "urgent"
    deadline = timedelta(hours=48)
    on_unknown = "resend"
    sensitive = True
    sample = "an address shall become a verified sender, and its owner is asked"

    recipient: OneRecipient
    action_url: Link
    expires_at: Moment
    sender_name: Annotated[str, OneLine(128)] = ""

    @classmethod
    def example(cls, at: datetime = EXAMPLE_TIME) -> Self:
        return cls(
            recipient=Recipient(address="hello@shop.example", name="Inès Martin", locale="fr"),
            action_url="https://school.example/senders/confirm?t=example-only",
            expires_at=at + timedelta(hours=48),
            sender_name="The Shop",
        )

    def to(self) -> tuple[Recipient, ...]:
        return (self.recipient,)

    def links(self) -> Iterator[tuple[str, str]]:
        yield "action_url", self.action_url

    def expires(self) -> datetime | None:
        return self.expires_at

    def supersede_key(self, recipient: Recipient) -> str | None:
        return recipient_key(self.kind, recipient)
