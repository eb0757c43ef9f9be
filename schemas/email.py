"""The rendered mail a driver receives. Plain values: everything hostile was refused before this point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from postier.schemas.values import value


def _nothing() -> None:
    """Nobody wants to know when the body leaves."""


@value(frozen=True, slots=True)
class Mailbox:
    """One address (ASCII or internationalised, without angle brackets) and the name shown with it."""

    address: str
    name: str = ""


@value(frozen=True, slots=True)
class Email:
    """One mail, complete and ready to leave.

    `mime` is the whole RFC 5322 message with CRLF line ends, not dot-stuffed, without Bcc; lines are at most 998 octets
    and, unless `smtputf8`, all octets are ASCII. `recipients` are the envelope recipients. `subject`, `text`, `html`
    and `headers` repeat the content for providers that take fields instead of a message. `delivery_id` is stable over
    all attempts (use it as the provider's idempotency key), as is `message_id` (with angle brackets).

    `wire_safe` is the maker's word that `mime` is so: no NUL, no bare CR or LF, and ASCII unless `smtputf8`; without
    it a driver looks itself.

    `handing_over()` must be called by drivers that set `announces_handover`, exactly once, when the very next octet
    sent may make the provider own the mail. It may raise: then nothing may be sent and the error must pass through.
    """

    delivery_id: str
    message_id: str
    envelope_from: str
    recipients: tuple[str, ...]
    sender: Mailbox
    to: tuple[Mailbox, ...]
    subject: str
    text: str
    html: str
    mime: bytes = field(repr=False)
    reply_to: Mailbox | None = None
    headers: tuple[tuple[str, str], ...] = ()
    smtputf8: bool = False
    wire_safe: bool = False
    handing_over: Callable[[], None] = field(default=_nothing, repr=False, compare=False)
