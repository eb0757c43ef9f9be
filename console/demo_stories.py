"""The demo's sample events, and how the story of each one ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from postier.ledger.queries import ENDS, Status
from postier.schemas.events import (
    AccountValidation,
    Change,
    ContactForm,
    DataChange,
    Entity,
    Event,
    Recipient,
    ResetLink,
    Visitor,
)

TENANT = "school"
HEALTHY, THROTTLED, WRONG_PASSWORD, BUSY_ONCE = "office", "newsletter", "library", "annexe"
HOST = "https://school.example"

End = Literal["sent", "retried", "waits", "failed"]

ENDINGS: Mapping[End, str] = {
    "sent": "is sent",
    "retried": "is refused once, then sent",
    "waits": "waits, its account is parked",
    "failed": "fails and waits for a person",
}


@dataclass(slots=True)
class Story:
    """One sample event, the account it leaves by, how it is to end, and its deliveries once it is published."""

    event: Event
    account: str
    end: End = "sent"
    note: str = ""
    deliveries: tuple[str, ...] = ()
    statuses: Sequence[Status] = field(default_factory=tuple)

    def told(self, accounts: Mapping[str, Mapping[str, Any]]) -> bool | None:
        """True when it ended as told, False when it ended otherwise, None while it goes on."""
        states = {status.state for status in self.statuses}
        if not states:
            return None
        if self.end == "waits":
            if states & set(ENDS):
                return False
            return True if accounts.get(self.account, {}).get("state") == "parked" and states == {"waiting"} else None
        if not states <= set(ENDS):
            return None
        if self.end == "failed":
            return states == {"failed"}
        attempts = max(status.attempt for status in self.statuses)
        return states == {"sent"} and (self.end != "retried" or attempts > 1)


def stories(now: datetime | None = None) -> list[Story]:
    """All four kinds in both languages over the four accounts, as of now."""
    at = (now or datetime.now(UTC)).replace(microsecond=0)
    nadia, sam = person(at, "Nadia Benali", "fr"), person(at, "Sam Okafor", "en")
    return [
        Story(validation(at, nadia), HEALTHY, note="in French"),
        Story(validation(at, sam), HEALTHY, note="in English"),
        Story(reset(at, person(at, "Lea Martin", "fr")), HEALTHY),
        Story(change(at, nadia, sam), HEALTHY, note="two subscribers, each in their language"),
        Story(contact(at, "contact", "Is there an open day in March?"), HEALTHY, note="to the form's own address"),
        Story(
            change(at, person(at, "Filtered Mail", "en")), HEALTHY, "failed",
            "the content filter refuses it",
        ),
        Story(change(at, *class_list(at)), THROTTLED, note="six subscribers at two a second"),
        Story(contact(at, "inscription", "Reste-t-il une place en CP ?"), THROTTLED, note="in French"),
        Story(reset(at, sam), WRONG_PASSWORD, "waits", "the server refuses its password"),
        Story(change(at, nadia), WRONG_PASSWORD, "waits", "behind the other one"),
        Story(
            validation(at, person(at, "Ines Moreau", "fr")), BUSY_ONCE,
            "retried", "the server is busy at first",
        ),
    ]  # fmt: skip


def person(at: datetime, name: str, locale: Literal["en", "fr"]) -> Recipient:
    """A recipient nobody wrote to before: cooldowns of an earlier start do not count."""
    return Recipient(address=f"{name.split()[0].lower()}@parents-{at:%H%M%S}.example", name=name, locale=locale)


def class_list(at: datetime) -> list[Recipient]:
    """Six subscribers, reading French and English in turn."""
    names = ("Claire Petit", "Tom Reed", "Amina Diallo", "Ann Lee", "Hugo Roux", "Joe Brown")
    return [person(at, name, "en" if number % 2 else "fr") for number, name in enumerate(names)]


def validation(at: datetime, recipient: Recipient) -> AccountValidation:
    """Someone signed up."""
    return AccountValidation(
        recipient=recipient, purpose="signup", action_url=f"{HOST}/welcome?token=demo", code="418 052",
        expires_at=at + timedelta(hours=24),
    )  # fmt: skip


def reset(at: datetime, recipient: Recipient) -> ResetLink:
    """Someone forgot a password."""
    return ResetLink(
        recipient=recipient, requested_at=at, expires_at=at + timedelta(hours=2), action_url=f"{HOST}/reset?token=demo",
        ip="192.0.2.44", device="Firefox on Linux",
    )  # fmt: skip


def change(at: datetime, *recipients: Recipient) -> DataChange:
    """A timetable changed."""
    return DataChange(
        subscription_id="timetable-4b", recipients=recipients, actor="Ms Laurent", changed_at=at,
        entity=Entity(type="timetable", id="4b", label="4B", url=f"{HOST}/timetable/4b"),
        changes=(
            Change(field="room", label="Room / Salle", old="B12", new="A03"),
            Change(field="starts", label="08:30 → 09:00", old="08:30", new="09:00"),
        ),
        unsubscribe_url=f"{HOST}/unsubscribe?list=timetable-4b",
    )  # fmt: skip


def contact(at: datetime, form: str, subject: str) -> ContactForm:
    """A visitor wrote."""
    return ContactForm(
        form_id=form, visitor=Visitor(name="Inès Moreau", address="ines@visitors.example"), subject=subject,
        message=f"{subject}\n\nInès Moreau", submitted_at=at,
    )  # fmt: skip


def samples(at: datetime) -> list[tuple[Event, str]]:
    """One event of each kind for the user to publish, with its account."""
    alex, kim = person(at, "Alex Durand", "fr"), person(at, "Kim Wood", "en")
    return [
        (validation(at, alex), HEALTHY),
        (reset(at, alex), HEALTHY),
        (change(at, alex, kim), THROTTLED),
        (contact(at, "contact", "When does the library open?"), HEALTHY),
    ]
