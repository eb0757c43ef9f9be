"""`contact_form`: a visitor wrote to the people behind a site."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import Strict

from postier.schemas.address import Address
from postier.schemas.events.base import EXAMPLE_TIME, Event, Moment, Part
from postier.schemas.text import ManyLines, OneLine


class Visitor(Part):
    """Who wrote, by their own words: nothing here was verified."""

    name: Annotated[str, OneLine(128)] = ""
    address: Address


class ContactForm(Event):
    """A visitor's message. It goes to the addresses configured for the form, never to one the visitor chose."""

    kind = "contact_form"
    deadline = timedelta(hours=48)
    on_unknown = "hold"
    sample = "a visitor filled in a contact form"

    form_id: Annotated[str, OneLine(64, blank=False)]
    visitor: Annotated[Visitor, Strict(False)]
    subject: Annotated[str, OneLine(255, blank=False)]
    message: Annotated[str, ManyLines(200_000, blank=False)]
    submitted_at: Moment

    @classmethod
    def example(cls, at: datetime = EXAMPLE_TIME) -> Self:
        return cls(
            form_id="contact",
            visitor=Visitor(name="Inès Moreau", address="ines@example.com"),
            subject="Open day in March?",
            message="Hello,\n\nis there an open day in March, and may I bring my daughter?\n\nInès Moreau",
            submitted_at=at,
        )

    def form(self) -> str | None:
        return self.form_id
