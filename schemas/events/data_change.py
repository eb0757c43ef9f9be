"""`data_change`: something people subscribed to has changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import FailFast, Field, Strict, StringConstraints

from postier.schemas.events.base import EXAMPLE_TIME, Event, Moment, OneRecipient, Part, Recipient, each_once
from postier.schemas.links import Link
from postier.schemas.text import ManyLines, OneLine


class Entity(Part):
    """What changed: its type and id in the application, the label people know it by, and where to see it."""

    type: Annotated[str, OneLine(64, blank=False)]
    id: Annotated[str, OneLine(200, blank=False)]
    label: Annotated[str, OneLine(300, blank=False)]
    url: Link | None = None


class Change(Part):
    """One changed field. `old` or `new` is None where there was or is no value; `masked` values are never shown."""

    field: Annotated[str, OneLine(200, blank=False)]
    label: Annotated[str, OneLine(200, blank=False)]
    old: Annotated[str, ManyLines(10_000)] | None = None
    new: Annotated[str, ManyLines(10_000)] | None = None
    masked: bool = False


class DataChange(Event):
    """What changed in one entity, for the subscribers of one list.

    `urgent` lifts it above the bulk mail. `together` lets recipients share mails (blind copies) up to the account's
    limit. With `unsubscribe_url` the mail carries one-click unsubscribe headers (RFC 8058).
    """

    kind = "data_change"
    deadline = timedelta(hours=48)
    on_unknown = "hold"
    sample = "a record someone follows was changed"

    # It names the list in the mail's List-Id header.
    subscription_id: Annotated[str, Strict(), StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}$")]
    # One fault is told; looking for all of a hundred thousand took half a second.
    recipients: Annotated[tuple[OneRecipient, ...], FailFast(), Field(strict=False, min_length=1, max_length=1000)]
    entity: Annotated[Entity, Strict(False)]
    changed_at: Moment
    changes: Annotated[
        tuple[Annotated[Change, Strict(False)], ...], FailFast(), Field(strict=False, min_length=1, max_length=100)
    ]
    actor: Annotated[str, OneLine(200)] | None = None
    urgent: bool = False
    unsubscribe_url: Link | None = None
    together: bool = False

    @classmethod
    def example(cls, at: datetime = EXAMPLE_TIME) -> Self:
        return cls(
            subscription_id="marks-4b",
            recipients=(
                Recipient(address="parent.one@example.org", name="Claire Petit", locale="fr"),
                Recipient(address="parent.two@example.com", name="Tom Reed", locale="en"),
            ),
            entity=Entity(
                type="timetable", id="4b-2099-02", label="Class 4B, week 2", url="https://school.example/timetable/4b"
            ),
            actor="Ms Laurent",
            changed_at=at,
            changes=(
                Change(field="room", label="Room", old="B12", new="A03"),
                Change(field="starts", label="Starts at", old="08:30", new="09:00"),
                Change(field="door_code", label="Door code", old="1111", new="2222", masked=True),
            ),
            unsubscribe_url="https://school.example/unsubscribe?list=marks-4b",
        )

    def to(self) -> tuple[Recipient, ...]:
        return each_once(self.recipients)

    def links(self) -> Iterator[tuple[str, str]]:
        if self.entity.url is not None:
            yield "entity.url", self.entity.url
        if self.unsubscribe_url is not None:
            yield "unsubscribe_url", self.unsubscribe_url

    @property
    def is_urgent(self) -> bool:
        """As the event itself says."""
        return self.urgent

    @property
    def shares_mail(self) -> bool:
        return self.together
