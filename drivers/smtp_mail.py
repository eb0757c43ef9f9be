"""One mail in SMTP's terms: its commands, its octets, and what replies make of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from postier.drivers.smtp_options import SAFE_ADDRESS
from postier.drivers.smtp_reply import ProtocolBroken, Reply
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_words import safe_words
from postier.schemas.email import Email
from postier.schemas.errors import (
    AccountError,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RecipientRefused,
    SenderRefused,
    Stage,
    TemporaryError,
)
from postier.schemas.receipt import Receipt, Refusal

_FOREIGN = frozenset({214, 220, 221, 235})  # replies that answer another command than MAIL, RCPT or a body
_ID_AFTER_OK = r"^(?:2\.\d\.\d )?O[Kk]:? ([\w.-]{16,128})\b"
_ID_AT_THE_START = re.compile(_ID_AFTER_OK)
_PROVIDER_ID = re.compile(rf"queued as:? ?([\w.@<>+-]{{3,128}})|\bid=([\w.@-]{{3,128}})|{_ID_AFTER_OK}")
_DOT_LINE = re.compile(rb"\r\n\.")


@dataclass(eq=False, slots=True)
class Transaction:
    """One mail on its way. `commands` are MAIL, each RCPT, DATA; `written` and `answered` count through them."""

    email: Email
    session: Session | None = None
    commands: list[bytes] = field(default_factory=list)
    written: int = 0
    answered: int = 0
    accepted: int = 0
    refused: list[Refusal] = field(default_factory=list)
    error: DeliveryError | None = None
    last: Reply | None = None

    @property
    def stage(self) -> Stage:
        """What the reply that is waited for answers."""
        if self.answered == 0:
            return "mail"
        left = len(self.commands) - self.answered
        return "rcpt" if left > 1 else "data" if left else "body"


def commands_for(email: Email, session: Session, envelope_from: str | None) -> list[bytes]:
    """MAIL, RCPT of everybody, DATA; raises what can be known before anything is said."""
    mime = email.mime
    sender = email.envelope_from if envelope_from is None else envelope_from
    if sender and not SAFE_ADDRESS.fullmatch(sender):
        raise SenderRefused("the envelope sender is not an address", stage="mail")
    if not email.recipients or not all(map(SAFE_ADDRESS.fullmatch, email.recipients)):
        raise RecipientRefused("a recipient is not an address", stage="rcpt")
    size = len(mime)
    if session.size_limit is not None and size > session.size_limit:
        raise EmailRefused(f"the mail has {size} octets; the server takes {session.size_limit}", stage="mail")
    if not email.wire_safe and not clean(mime):
        raise EmailRefused("the mail has a bare line end or a NUL", stage="body")
    mail = f"MAIL FROM:<{sender}>"
    if "SIZE" in session.extensions:
        mail += f" SIZE={size}"
    rcpts = [f"RCPT TO:<{address}>\r\n" for address in email.recipients]
    told_ascii = email.wire_safe or mime.isascii()
    if email.smtputf8 or not (told_ascii and sender.isascii() and all(map(str.isascii, email.recipients))):
        if not session.utf8:
            text = "no_smtputf8: the server takes no internationalised mail"
            raise RecipientRefused(text, enhanced="5.6.7", stage="mail", cause="no_smtputf8")
        mail += " SMTPUTF8" if "8BITMIME" not in session.extensions else " BODY=8BITMIME SMTPUTF8"
    return [f"{mail}\r\n".encode(), *map(str.encode, rcpts), b"DATA\r\n"]


def clean(mime: bytes) -> bool:
    """Whether line ends are CRLF alone and there is no NUL: anything else may read differently on the other side."""
    return mime.count(b"\r\n") == mime.count(b"\n") == mime.count(b"\r") and b"\0" not in mime


def stuffed(mime: bytes) -> bytes:
    """The body as it goes over the wire: dots doubled, a lone dot at the end (RFC 5321 section 4.5.2)."""
    if _DOT_LINE.search(mime):  # half the time that `in` takes
        mime = mime.replace(b"\r\n.", b"\r\n..")
    if mime.startswith(b"."):
        mime = b"." + mime
    return mime + (b".\r\n" if mime.endswith(b"\r\n") or not mime else b"\r\n.\r\n")


def accepts(reply: Reply) -> bool:
    """A 2xx that can be meant for MAIL, RCPT or a body. Another command's 2xx means that we and the server disagree."""
    if reply.code == 250:
        return True
    if reply.code in _FOREIGN or 300 <= reply.code < 400:
        raise ProtocolBroken("protocol: the answer belongs to another command")
    return reply.code < 300


def worst(refused: list[Refusal]) -> DeliveryError:
    """One error for a mail that nobody may get: what a retry can mend first, then the account's faults."""
    errors = [refusal.error for refusal in refused]
    for kind in (TemporaryError, AccountError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]


def kept_for_later(error: DeliveryError) -> DeliveryError:
    """After 421 the mail is to be tried again, whatever else the reply says."""
    if error.code != 421 or isinstance(error, TemporaryError):
        return error
    return TemporaryError(error.text, code=error.code, enhanced=error.enhanced, stage=error.stage)


def unknown(transaction: Transaction, text: str, reply: Reply | None = None) -> OutcomeUnknown:
    last = reply or transaction.last
    return OutcomeUnknown(
        f"no verdict on the whole body: {text}",
        stage="body",
        code=reply.code if reply else None,
        enhanced=reply.enhanced if reply else None,
        evidence={
            "bytes": len(transaction.email.mime),
            "stage": "body",
            "last_reply": f"{last.code} {safe_words(last.text)}" if last else "",
        },
    )


def receipt_for(transaction: Transaction, reply: Reply, session: Session) -> Receipt:
    code, text = reply
    # Few servers name an id elsewhere than at the start, and looking for it everywhere takes ten times as long.
    found = _PROVIDER_ID.search(text) if "queued as" in text or "id=" in text else _ID_AT_THE_START.match(text)
    return Receipt(
        provider_id=found[found.lastindex or 0] if found else None,
        code=code,
        enhanced="2.0.0" if text.startswith("2.0.0 ") else reply.enhanced,
        text=safe_words(text, session.secrets),
        refused=tuple(transaction.refused),
    )
