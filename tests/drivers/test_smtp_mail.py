"""One mail in SMTP's terms: what is read from the reply that took it, and its octets on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postier.drivers.smtp_mail import _PROVIDER_ID, Transaction, receipt_for, stuffed
from postier.drivers.smtp_reply import Reply
from postier.drivers.smtp_session import Session
from postier.schemas.email import Email, Mailbox

SESSION = Session(wire=cast("Any", None), options=cast("Any", None))
EMAIL = Email(
    "d", "<d@example.org>", "a@example.org", ("b@example.com",), Mailbox("a@example.org"), (), "s", "t", "", b""
)


def taken(text: str) -> tuple[str | None, str | None]:
    receipt = receipt_for(Transaction(EMAIL), Reply(250, text), SESSION)
    return receipt.provider_id, receipt.enhanced


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2.0.0 Ok: queued as 4XyZ12345", ("4XyZ12345", "2.0.0")),
        ("OK id=1tGabc-000000001-AbCd", ("1tGabc-000000001-AbCd", None)),
        ("2.0.0 Ok 0102018f3c0e4d5a-12ab34cd-000000", ("0102018f3c0e4d5a-12ab34cd-000000", "2.0.0")),
        ("Ok 0102018f3c0e4d5a-12ab34cd-000000", ("0102018f3c0e4d5a-12ab34cd-000000", None)),
        ("2.6.0 message accepted", (None, "2.6.0")),
        ("2.0.0.1 taken", (None, None)),
        ("2.0.0", (None, "2.0.0")),
        ("it is OK 0102018f3c0e4d5a-12ab34cd-000000", (None, None)),
    ],
)
def test_a_reply_is_asked_for_its_id_and_its_enhanced_code(text: str, told: tuple[str | None, str | None]) -> None:
    assert taken(text) == told


PARTS = ["2.0.0 ", "Ok", "OK", ":", " ", "queued as", "id=", "a" * 20, "x-1", "\n", "é", "2.6.0 "]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_the_id_is_the_one_that_a_search_of_the_whole_reply_finds(text: str) -> None:
    found = _PROVIDER_ID.search(text)
    assert taken(text) == (found[found.lastindex or 0] if found else None, Reply(250, text).enhanced)


@given(st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a", b"\n", b"\r"]), max_size=12).map(b"".join))
def test_every_line_that_begins_with_a_dot_gets_another(mime: bytes) -> None:
    wire = stuffed(mime)
    lines = wire.removesuffix(b".\r\n").removesuffix(b"\r\n").split(b"\r\n")
    assert wire.endswith(b".\r\n")
    assert b"\r\n".join(line.removeprefix(b".") for line in lines) == mime.removesuffix(b"\r\n")
    assert not any(line.startswith(b".") and not line.startswith(b"..") for line in lines)


def test_values_of_a_mail_are_compared_and_kept_like_frozen_ones() -> None:
    assert replace(EMAIL) == EMAIL
    assert replace(EMAIL, subject="other") != EMAIL
    assert len({Mailbox("a@example.org"), Mailbox("a@example.org"), Mailbox("b@example.org")}) == 2
    assert not hasattr(EMAIL, "__dict__")
