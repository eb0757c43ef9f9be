"""The bytes of a mail. The standard library writes the structure once; per mail only headers and bodies are encoded.

Wire rules (RFC 5322, RFC 2045): CRLF everywhere, no NUL, no bare CR or LF, lines of at most 998 octets, ASCII only unless
an address is internationalised (then headers may be UTF-8, RFC 6532).
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import lru_cache

from postier.schemas.email import Mailbox
from postier.schemas.errors import RenderError

MAX_LINE = 998  # octets without CRLF, RFC 5322 section 2.1.1
_FOLD = 76

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_LINE_SEPARATORS = re.compile("[\u2028\u2029]+")
_BODY_CONTROL = re.compile("[\x00\x0b\x0c]")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{3,240}>\Z")
_URL = re.compile(r"https://[!-;=?-~]+\Z", re.IGNORECASE)


def _is_plain(value: str) -> bool:
    # "=?" opens an encoded word: left alone, a reader would decode what the visitor typed.
    return value.isascii() and value.isprintable() and "=?" not in value


@lru_cache(maxsize=2048)
def _encoded(name: str, value: str, charset: str) -> str:
    return Header(value, charset, maxlinelen=_FOLD, header_name=name).encode(linesep="\r\n")


def _refuse_controls(name: str, value: str) -> str:
    if _CONTROL.search(value):
        raise RenderError(f"{name}: control characters cannot be sent in a header")
    return _LINE_SEPARATORS.sub(" ", value)


def unstructured(name: str, value: str) -> str:
    """One header line with free text, folded and encoded as needed, with its CRLF. RenderError on control characters."""
    if _is_plain(value):
        if len(name) + 2 + len(value) <= _FOLD:
            return f"{name}: {value}\r\n"
        if "  " not in value and all(len(word) <= 60 for word in value.split(" ")):
            return f"{name}: {_encoded(name, value, 'us-ascii')}\r\n"
    return f"{name}: {_encoded(name, _refuse_controls(name, value), 'utf-8')}\r\n"


def mailbox(name: str, box: Mailbox) -> str:
    """One header line with exactly one mailbox, whatever its display name holds. RenderError on control characters."""
    if not box.name:
        return f"{name}: {box.address}\r\n"
    if _is_plain(box.name) and len(box.name) <= 60:
        shown = '"' + box.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        shown = _encoded(name, _refuse_controls(name, box.name), "utf-8")
    space = " " if len(name) + len(shown) + len(box.address) <= _FOLD - 5 else "\r\n "
    return f"{name}: {shown}{space}<{box.address}>\r\n"


def message_id_line(message_id: str) -> str:
    """The Message-ID header; RenderError unless it is one ASCII id in angle brackets."""
    if not _MESSAGE_ID.match(message_id):
        raise RenderError("Message-ID: not an ASCII id in angle brackets")
    return f"Message-ID: {message_id}\r\n"


@lru_cache(maxsize=4)
def date_line(seconds: int) -> str:
    """The Date header for a moment in seconds since 1970, in UTC."""
    return f"Date: {format_datetime(datetime.fromtimestamp(seconds, UTC))}\r\n"


def url_value(name: str, url: str) -> str:
    """`<url>` as the List-* headers want it (RFC 2369), folded when it is too long for one line."""
    ascii_url = url if url.isascii() else "".join(c if c.isascii() else _percent(c) for c in url)
    if not _URL.match(ascii_url):
        raise RenderError(f"{name}: not an https link")
    # RFC 2369 section 2: white space inside the brackets is to be ignored by readers.
    folded = "\r\n ".join(ascii_url[start : start + 900] for start in range(0, len(ascii_url), 900))
    return f"<{folded}>"


def _percent(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode())


def encode_body(text: str) -> tuple[bytes, bytes]:
    """Transfer encoding and wire bytes of a body with LF line ends: 7bit when it fits, else the shorter of the others."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    raw = text.encode()
    if raw.isascii() and not _BODY_CONTROL.search(text) and (len(raw) <= MAX_LINE or _short_lines(raw)):
        return b"7bit", raw.replace(b"\n", b"\r\n")
    if b"\0" in raw:
        raise RenderError("a body cannot hold NUL")
    printable = binascii.b2a_qp(raw, istext=True)
    if len(printable) * 3 > len(raw) * 5:
        return b"base64", base64.encodebytes(raw.replace(b"\n", b"\r\n")).replace(b"\n", b"\r\n")
    return b"quoted-printable", printable.replace(b"\n", b"\r\n")


def _short_lines(raw: bytes) -> bool:
    return max(map(len, raw.split(b"\n"))) <= MAX_LINE


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The parts of a multipart/alternative mail that do not change, as the standard library serialised them.

    `pieces` are the octets around boundary, encoding and body of the text part, then of the HTML part.
    """

    pieces: tuple[bytes, ...]
    boundary: bytes

    @classmethod
    def build(cls, headers: tuple[tuple[str, str], ...]) -> Skeleton:
        """A skeleton with these fixed headers."""
        boundary = _new_boundary()
        message = EmailMessage(SMTP)
        for name, value in headers:
            message[name] = value
        message.set_content("{{text}}", cte="7bit")
        message.add_alternative("{{html}}", subtype="html", cte="7bit")
        for part in message.iter_parts():
            del part["MIME-Version"]
        message.set_boundary(boundary.decode())
        raw = message.as_bytes()
        marks = re.compile(rb"(?<=Encoding: )7bit|\{\{text\}\}\r\n|\{\{html\}\}\r\n|" + re.escape(boundary))
        return cls(tuple(marks.split(raw)), boundary)

    def compose(self, headers: str, text: str, html: str) -> bytes:
        """The whole mail: these header lines, then the fixed ones, then the two bodies (both end with a line feed)."""
        text_encoding, text_body = encode_body(text)
        html_encoding, html_body = encode_body(html)
        edge = self.boundary
        while edge in text_body or edge in html_body:
            edge = _new_boundary()
        head, a, b, c, d, e, f, end, tail = self.pieces
        return b"".join(
            (headers.encode(), head, edge, a, edge, b, text_encoding, c, text_body, d)
            + (edge, e, html_encoding, f, html_body, end, edge, tail)
        )


def _new_boundary() -> bytes:
    return b"=_" + secrets.token_hex(16).encode()
