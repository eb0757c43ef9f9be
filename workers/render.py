"""From an event to the mail a driver receives: templates, headers, MIME bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Required, TypedDict, Unpack

from markupsafe import escape

from postier.schemas.account import Account
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import RenderError
from postier.schemas.events import ContactForm, Event
from postier.workers.colours import ink_on, readable_on
from postier.workers.headers import Headers, feedback_instance, fixed_headers, list_headers
from postier.workers.mime import Skeleton, date_line, mailbox, message_id_line, opaque, unstructured
from postier.workers.templates import Fields, TemplateSet, spelled, templates_for

# The backgrounds in schemas/templates/mjml that coloured text reads worst on: the light page, the dark card.
_LIGHT, _DARK = "#f0f2f5", "#1f2429"
_VISITOR = {"en": "Visitor", "fr": "Visiteur"}
_EVERYBODY = Mailbox("")


class Person(Protocol):
    """What render needs of a recipient (`schemas.events.Recipient`)."""

    @property
    def address(self) -> str: ...
    @property
    def name(self) -> str: ...


class Stamp(TypedDict, total=False):
    """What a mail needs besides its event. `reply_to` goes before the account's; `date` is seconds since 1970."""

    kind: Required[str]
    tenant: Required[str]
    delivery_id: Required[str]
    message_id: Required[str]
    reply_to: str | None
    date: float | None
    handing_over: Callable[[], None]


def _nothing() -> None:
    """Nobody wants to know when the body leaves."""


@dataclass(frozen=True, slots=True)
class Brand:
    """The `brand_*` values every template may use: for text, and escaped once for HTML."""

    plain: dict[str, str]
    html: dict[str, str]


def brand_fields(account: Account) -> Brand:
    """An account's brand; colours are moved as far as reading them takes."""
    colour = account.brand.colour
    plain = {
        "brand_name": account.brand.name or account.sender.name or account.sender.address.rpartition("@")[2],
        "brand_logo": account.brand.logo_url,
        "brand_colour": colour,
        "brand_ink": ink_on(colour),
        "brand_link": readable_on(_LIGHT, colour),
        "brand_link_dark": readable_on(_DARK, colour),
    }
    return Brand(plain, {name: escape(value) for name, value in plain.items()})


class Renderer:
    """Writes the mails of one account. Made once and kept: it holds what all of them share. Safe to use from threads.

    `feedback_id_instance` (5 to 15 characters) ends the Feedback-ID header; RenderError when it cannot.
    """

    def __init__(self, account: Account, *, feedback_id_instance: str = "postier") -> None:
        self._account = account
        self._brand = brand_fields(account)
        self._sender = Mailbox(account.sender.address, account.sender.name or account.brand.name)
        self._from_line = mailbox("From", self._sender)
        self._reply_to = Mailbox(account.reply_to) if account.reply_to else None
        self._domain = account.sender.address.rpartition("@")[2]
        self._instance = feedback_instance(feedback_id_instance)
        self._skeletons: dict[str, Skeleton] = {}

    def render(self, event: Event, *, recipient: Person, **stamp: Unpack[Stamp]) -> Email:
        """The mail to one recipient. Rendering twice is safe.

        Raises RenderError when a template is missing or does not fit the event; retrying cannot help.
        """
        to = Mailbox(recipient.address, recipient.name)
        return self._mail(event, recipient, to, (to.address,), **stamp)

    def render_packet(self, event: Event, *, recipients: Sequence[Person], **stamp: Unpack[Stamp]) -> Email:
        """One mail for several recipients who do not see each other: To is the sender, nobody is greeted by name.

        All must read the same language: the first recipient's locale is used. Raises RenderError as `render` does, and
        for sensitive kinds, which are never shared.
        """
        if event.sensitive:
            raise RenderError(f"{stamp['kind']}: this kind goes to one recipient at a time")
        everybody = _Everybody(getattr(recipients[0], "locale", None))
        return self._mail(event, everybody, self._sender, tuple(one.address for one in recipients), **stamp)

    def _mail(
        self,
        event: Event,
        reader: Person,
        to: Mailbox,
        recipients: tuple[str, ...],
        *,
        kind: str,
        tenant: str,
        delivery_id: str,
        message_id: str,
        reply_to: str | None = None,
        date: float | None = None,
        handing_over: Callable[[], None] = _nothing,
    ) -> Email:
        templates = templates_for(kind, getattr(reader, "locale", None), self._account.locale)
        subject, text, html = write(templates, event, reader, self._brand)
        sender, answers_to = self._sender, Mailbox(reply_to) if reply_to else self._reply_to
        if isinstance(event, ContactForm):
            sender = self._on_behalf(event, templates.locale)
            answers_to = Mailbox(event.visitor.address, event.visitor.name)
        extra: Headers = (
            *list_headers(kind, event, tenant=tenant, domain=self._domain),
            ("Feedback-ID", f"{kind}:{tenant}:{self._account.name}:{self._instance}"),
        )
        lines = (
            self._from_line if sender is self._sender else mailbox("From", sender),
            mailbox("To", to),
            mailbox("Reply-To", answers_to) if answers_to else "",
            unstructured("Subject", subject),
            date_line(int(time.time() if date is None else date)),
            message_id_line(message_id),
            *(opaque(name, value) for name, value in extra),
        )
        head = "".join(lines)
        skeleton = self._skeletons.get(kind) or self._skeletons.setdefault(kind, Skeleton.build(fixed_headers(kind)))
        return Email(
            delivery_id=delivery_id,
            message_id=message_id,
            envelope_from=sender.address,
            recipients=recipients,
            sender=sender,
            to=(to,),
            subject=subject,
            text=text,
            html=html,
            mime=skeleton.compose(head, text, html),
            reply_to=answers_to,
            headers=fixed_headers(kind) + extra,
            smtputf8=not (head.isascii() and all(map(str.isascii, recipients))),
            wire_safe=True,  # by construction: headers are checked lines, bodies are encoded
            handing_over=handing_over,
        )

    def _on_behalf(self, event: ContactForm, locale: str) -> Mailbox:
        # The address stays ours: the visitor's would fail DMARC, and any provider's check of the sender.
        visitor = event.visitor.name.strip() or _VISITOR[locale]
        return Mailbox(self._sender.address, f"{visitor} via {self._brand.plain['brand_name']}")


class _Everybody:
    """The reader of a packet: a language, no name."""

    address = name = ""

    def __init__(self, locale: str | None) -> None:
        self.locale = locale


def write(templates: TemplateSet, event: Event, reader: Person, brand: Brand) -> tuple[str, str, str]:
    """Subject (one line), text and HTML; the HTML is ASCII with character references. Raises RenderError."""
    fields = Fields(event.__dict__)
    fields.update(brand.plain)
    fields["recipient"] = reader
    subject = " ".join(templates.subject.render(fields).split("\n")).strip()
    text = templates.text.render(fields).strip("\n") + "\n"
    fields.update(brand.html)
    fields["mail_subject"] = spelled(subject)
    html = templates.html.render(fields)
    return subject, text, html if html.isascii() else html.encode("ascii", "xmlcharrefreplace").decode("ascii")


def preview(kind: str, event: Event, account: Account, locale: str) -> tuple[str, str, str]:
    """Subject, text and HTML as the first recipient would read them in this locale. Raises RenderError.

    The HTML holds attackers' text, escaped: show it in a sandboxed frame all the same.
    """
    chosen = event.to()
    reader: Person = chosen[0] if chosen else Mailbox(account.sender.address)
    return write(templates_for(kind, locale), event, reader, brand_fields(account))
