"""The reply reader takes whatever a socket brings: whole replies, or one clear refusal."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postier.drivers.smtp_reply import MAX_LINE, MAX_LINES, MAX_REPLY, ConnectionLost, ProtocolBroken, Reply, Wire
from postier.drivers.smtp_words import safe_words, wished_wait
from tests.conftest import PATIENCE


@contextmanager
def wire_bringing(*pieces: bytes) -> Iterator[Wire]:
    """A wire over which all pieces have come, and then the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.shutdown(socket.SHUT_WR)
        yield Wire(ours, timeout=PATIENCE, clock=time.monotonic)


def all_replies(*pieces: bytes) -> tuple[list[Reply], str]:
    """Every reply, and how it ended."""
    replies: list[Reply] = []
    with wire_bringing(*pieces) as wire:
        while True:
            try:
                replies.append(wire.read())
            except (ConnectionLost, ProtocolBroken) as end:
                return replies, type(end).__name__


@pytest.mark.parametrize(
    ("octets", "reply", "enhanced"),
    [
        (b"250 2.1.0 Ok\r\n", Reply(250, "2.1.0 Ok"), "2.1.0"),
        (b"250-one\r\n250-two\r\n250 three\r\n", Reply(250, "one\ntwo\nthree"), None),
        (b"354\r\n", Reply(354, ""), None),
        (b"250 \r\n", Reply(250, ""), None),
        (b"220 lone line feed\n", Reply(220, "lone line feed"), None),
        (b"550 5.1.1.9 no code\r\n", Reply(550, "5.1.1.9 no code"), None),
        ("250 für dich\r\n".encode(), Reply(250, "für dich"), None),
        (b"250 \xff\r\n", Reply(250, "\\xff"), None),
        (b"250 " + b"x" * (MAX_LINE - 8) + b"\r\n", Reply(250, "x" * (MAX_LINE - 8)), None),
    ],
)
def test_a_reply_is_read_whole(octets: bytes, reply: Reply, enhanced: str | None) -> None:
    with wire_bringing(octets) as wire:
        found = wire.read()

    assert found == reply
    assert found.enhanced == enhanced


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"25\r\n",
        b"150 no such thing\r\n",
        b"650 no such thing\r\n",
        b"2x0 Ok\r\n",
        b"250Ok\r\n",
        b"250=Ok\r\n",
        b" 250 Ok\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"-ERR unknown command\r\n",
        b"\xb2\xb2\xb2 superscript digits\r\n",
        b"250-one\r\n251 two\r\n",
        b"250 " + b"x" * (MAX_LINE + 1) + b"\r\n",
        b"x" * (MAX_LINE + 4096),
        b"250-x\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 1_000 + b"\r\n") * (MAX_REPLY // 1_000 + 1),
    ],
)
def test_what_is_no_reply_breaks_the_connection(octets: bytes) -> None:
    with wire_bringing(octets) as wire, pytest.raises(ProtocolBroken, match=r"^protocol: "):
        wire.read()


def test_an_unfinished_reply_is_a_lost_connection() -> None:
    with wire_bringing(b"250-one\r\n250 tw") as wire, pytest.raises(ConnectionLost):
        wire.read()


LINES = st.sampled_from([b"250 Ok\r\n", b"250-more\r\n", b"354 go\n", b"junk\r\n", b"\r\n", b"550 no\r", b"\n", b"4"])


@given(st.lists(LINES | st.binary(max_size=12), max_size=12), st.lists(st.integers(1, 9), max_size=20))
def test_how_the_octets_are_cut_into_pieces_changes_nothing(parts: list[bytes], sizes: list[int]) -> None:
    octets = b"".join(parts)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(octets[at : at + size])
        at += size
    pieces.append(octets[at:])

    assert all_replies(*pieces) == all_replies(octets)


@given(st.text())
def test_shown_words_are_one_short_printable_line(text: str) -> None:
    words = safe_words(text)

    assert len(words) <= 300
    assert words.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<jane.roe@example.com>: unknown", "<j***@e***>: unknown"),
        ("to=jane@mail.example.com, from=joe@example.org", "to=j***@m***, from=j***@e***"),
        ("zoé@exämple.com and x@[192.0.2.1]", "z***@e*** and x***@[***"),
        ("bell \a and \x1b[1m", "bell \\x07 and \\x1b[1m"),
        ("password hunter22 was wrong", "password *** was wrong"),
    ],
)
def test_shown_words_keep_no_address_secret_or_control_character(text: str, shown: str) -> None:
    assert safe_words(text, ("hunter22",)) == shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, try again in 60 seconds", 60),
        ("try again in 5 minutes", 300),
        ("please retry after 2 hours", 7_200),
        ("wait 30s", 30),
        ("Retry-After: 17", 17),
        ("delay=240", 240),
        ("come back in 99 hours", 86_400),
        ("4.7.28 rate of mail, see 15.20.5", None),
        ("too many connections", None),
    ],
)
def test_a_wish_to_wait_is_understood(text: str, seconds: float | None) -> None:
    assert wished_wait(text) == seconds
