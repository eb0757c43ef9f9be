"""The bytes of a mail. The standard library writes the structure once; per mail only headers and bodies are encoded.

Wire rules (RFC 5322, RFC 2045): CRLF everywhere, no NUL, no bare CR or LF, lines of at most 998 octets, ASCII only
unless an address is internationalised (then headers may be UTF-8, RFC 6532).
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
_MAX_PIECE = 900
_BOUNDARY = "BCDEFGHIKLNOPQRSTUVWXYZ"  # 153 bits in 34 of them

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_SEPARATORS = re.compile("[\u2028\u2029]+")
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
    """One header line with free text, folded and encoded as needed, with its CRLF. RenderError on controls."""
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
    if _is_plain(box.name) and len(box.name) <= 300:
        shown = '"' + box.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        shown = _encoded(name, _refuse_controls(name, box.name), "utf-8")
    space = " " if len(name) + len(shown) + len(box.address) <= _FOLD - 5 else "\r\n "
    return f"{name}: {shown}{space}<{box.address}>\r\n"


def opaque(name: str, value: str) -> str:
    """One header line with a value of our own making, which is ASCII and takes no encoding."""
    if len(value) <= _MAX_PIECE:
        return f"{name}: {value}\r\n"
    # Only a link gets that long; readers ignore white space inside its brackets (RFC 2369 section 2).
    pieces = (value[start : start + _MAX_PIECE] for start in range(0, len(value), _MAX_PIECE))
    return f"{name}: " + "\r\n ".join(pieces) + "\r\n"


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
    """`<url>` as the List-* headers want it (RFC 2369), in ASCII. RenderError when it is no https link."""
    ascii_url = url if url.isascii() else "".join(c if c.isascii() else _percent(c) for c in url)
    if not _URL.match(ascii_url):
        raise RenderError(f"{name}: not an https link")
    return f"<{ascii_url}>"


def _percent(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode())


def encode_body(text: str) -> tuple[bytes, bytes]:
    """Transfer encoding and wire bytes of a body with LF line ends: 7bit when it fits, else the shorter other one."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise RenderError("a body cannot hold NUL")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise RenderError("a body cannot hold half a character") from None
    # Some programs end a line at a vertical tab or form feed: those are encoded.
    if raw.isascii() and "\v" not in text and "\f" not in text and _lines_fit(raw):
        return b"7bit", raw.replace(b"\n", b"\r\n")
    printable = binascii.b2a_qp(raw, istext=True)
    if len(printable) * 3 > len(raw) * 5:
        return b"base64", base64.encodebytes(raw.replace(b"\n", b"\r\n")).replace(b"\n", b"\r\n")
    return b"quoted-printable", printable.replace(b"\n", b"\r\n")


def _lines_fit(raw: bytes) -> bool:
    start, size = 0, len(raw)
    while size - start > MAX_LINE:  # the last line end within reach: all lines up to it fit
        end = raw.rfind(b"\n", start, start + MAX_LINE + 1)
        if end < 0:
            return False
        start = end + 1
    return True


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
        text_part = (a, edge, b, text_encoding, c, text_body)
        html_part = (d, edge, e, html_encoding, f, html_body)
        return b"".join((headers.encode(), head, edge, *text_part, *html_part, end, edge, tail))


def _new_boundary() -> bytes:
    # Capitals, which bodies have few of: looking for it there passes over most octets.
    return "".join(secrets.choice(_BOUNDARY) for _ in range(34)).encode()
