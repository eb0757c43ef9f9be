"""What the render tests share: an account, mails of every kind, and the way a reader's program takes them apart."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

from postier.schemas.account import Account, Brand, Sender
from postier.schemas.email import Email
from postier.schemas.events import KINDS, Event, Recipient
from postier.workers.render import Renderer

ACCOUNT = Account(
    name="school",
    driver="smtp",
    sender=Sender(address="post@school.example", name="Riverside School"),
    brand=Brand(name="Riverside School", logo_url="https://school.example/logo.png", colour="#1f6f54"),
)
RENDERER = Renderer(ACCOUNT)
CASES = [
    (kind, locale)
    for kind, event in KINDS.items()
    if event.__module__.startswith("postier.")  # another package's is its own affair
    for locale in ("en", "fr")
]
MESSAGE_ID = "<d-1.1@school.example>"


def rendered(event: Event, locale: str | None = "en", renderer: Renderer = RENDERER, **changes: Any) -> Email:
    recipient = changes.pop("recipient", None) or Recipient(address="ada@example.org", name="Ada Byron", locale=locale)
    stamp = {"kind": event.kind, "tenant": "riverside", "delivery_id": "d-1.1", "message_id": MESSAGE_ID, **changes}
    return renderer.render(event, recipient=recipient, **stamp)


def example(kind: str, **changes: Any) -> Event:
    """The kind's example with some fields changed, checked again by the schema."""
    event = KINDS[kind].example()
    return type(event)(**{**{name: getattr(event, name) for name in type(event).model_fields}, **changes})


def parsed(mail: Email) -> EmailMessage:
    return email.message_from_bytes(mail.mime, policy=email.policy.default)


def bodies(mail: Email) -> tuple[str, str]:
    """Text and HTML as a reader's program decodes them."""
    message = parsed(mail)
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return tuple(part.get_content().replace("\r\n", "\n") for part in (text, html))


def name_shown(mail: Email, header: str) -> str:
    """The display name as RFC 2047 has it decoded (Python 3.11's newer parser keeps spaces between encoded words)."""
    raw = email.message_from_bytes(mail.mime, policy=email.policy.compat32)[header]
    return str(make_header(decode_header(parseaddr(raw)[0])))


def assert_wire_rules(mail: Email) -> None:
    """RFC 5321 and 5322: CRLF alone ends lines, 998 octets at most, no NUL, ASCII unless the mail says otherwise."""
    wire = mail.mime
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n")
    assert b"\0" not in wire
    assert max(map(len, wire.split(b"\r\n"))) <= 998
    assert mail.smtputf8 or wire.isascii()
    assert wire.endswith(b"\r\n")
