"""Takes a mail apart as readers' programs do, and holds it to what postier meant to say."""

from __future__ import annotations

import email
import email.policy
import re
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses, parseaddr
from functools import cache
from html.parser import HTMLParser
from typing import Any

from tests.attacks.kit import SENDER, Mail

_ALWAYS = {
    "from", "to", "subject", "date", "message-id", "feedback-id", "mime-version", "content-type",
    "x-auto-response-suppress",
}  # fmt: skip
_MORE = {
    "contact_form": {"reply-to"},
    "account_validation": {"auto-submitted"},
    "reset_link": {"auto-submitted"},
    "data_change": {"auto-submitted", "list-id", "list-unsubscribe", "list-unsubscribe-post"},
}


class _Shape(HTMLParser):
    """Tags with their attributes' names, links, and the text between."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[tuple[str, ...]] = set()
        self.links: set[str] = set()
        self.words: list[str] = []
        self.comments: set[str] = set()
        self._mute = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *sorted(name for name, _ in attrs)))
        self.links |= {value or "" for name, value in attrs if name in ("href", "src", "action", "background")}
        self._mute += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._mute -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._mute:
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.add(data)


@cache
def shape(html: str) -> _Shape:
    """What a reader's program makes of the HTML."""
    parser = _Shape()
    parser.feed(html)
    parser.close()
    return parser


@cache
def message_of(mail: Mail) -> EmailMessage:
    return email.message_from_bytes(mail.octets, policy=email.policy.default)


@cache
def bodies(mail: Mail) -> tuple[str, str]:
    """Text and HTML, line ends as LF."""
    message = message_of(mail)
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert sorted(text.keys()) == sorted(html.keys()) == ["Content-Transfer-Encoding", "Content-Type"]
    return tuple(part.get_content().replace("\r\n", "\n") for part in (text, html))


def raw_header(mail: Mail, name: str) -> str:
    """The one header of this name, unfolded, as it is on the wire."""
    head = re.sub(rb"\r\n(?=[ \t])", b"", mail.octets.partition(b"\r\n\r\n")[0]).decode("utf-8")
    found = [line for line in head.split("\r\n") if line.lower().startswith(f"{name}:")]
    assert len(found) == 1, f"{name} stands {len(found)} times"
    return found[0].partition(":")[2].strip()


def name_in(mail: Mail, header: str) -> str:
    """The display name as people see it."""
    raw = email.message_from_bytes(mail.octets, policy=email.policy.compat32)[header]
    return str(make_header(decode_header(parseaddr(re.sub(r"\r\n(?=[ \t])", "", str(raw)))[0])))


def faults(mail: Mail, kind: str, *, sender: str = SENDER) -> list[str]:
    """Everything about the mail that is not as every mail of its kind must be; empty when all is well."""
    found: list[str] = []

    def expect(right: bool, words: str) -> None:
        if not right:
            found.append(words)

    octets = mail.octets
    expect(octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n"), "a bare CR or LF")
    expect(b"\0" not in octets, "a NUL")
    expect(max(map(len, octets.split(b"\r\n"))) <= 998, "a line longer than 998 octets")
    expect(mail.mail_from == sender, f"MAIL FROM is {mail.mail_from}")
    head = octets.partition(b"\r\n\r\n")[0]
    names = [name.lower() for name in re.findall(rb"(?m)^([!-9;-~]+):", re.sub(rb"\r\n[ \t]+", b" ", head))]
    allowed = _ALWAYS | _MORE[kind]
    given = [name.decode() for name in names]
    expect(len(set(given)) == len(given), f"a header twice: {given}")
    expect(set(given) <= allowed, f"headers nobody ordered: {set(given) - allowed}")
    message = message_of(mail)
    expect(sorted(name.lower() for name in set(message)) == sorted(given), "two parsers see different headers")
    for name in {"from", "to", "reply-to"} & set(given):
        modern = [address.addr_spec for address in message[name].addresses]
        classic = [address for _, address in getaddresses([raw_header(mail, name)])]
        expect(len(classic) == 1, f"{name}: not one mailbox: {classic}")
        ascii_only = all(map(str.isascii, classic))
        expect(not ascii_only or modern == classic, f"{name}: {modern} or {classic}")
    expect(parseaddr(raw_header(mail, "from"))[1] == sender, "From is not the account's sender")
    return found


def turns_what_follows(line: str) -> bool:
    """Whether an embedding or isolate is still open at the end (UAX 9): it may turn the words after it round."""
    still_open = ""
    for mark in line:
        if mark in "\u202a\u202b\u202d\u202e":
            still_open += "e"
        elif mark in "\u2066\u2067\u2068":
            still_open += "i"
        elif mark == "\u202c":
            still_open = still_open.removesuffix("e")
        elif mark == "\u2069" and "i" in still_open:
            still_open = still_open[: still_open.rindex("i")]
    return bool(still_open)


def flat(text: Any) -> str:
    """Text for searching: no quoting marks at line starts, one space for any white space."""
    return " ".join(re.sub(r"(?m)^>( |$)", "", str(text)).split())
