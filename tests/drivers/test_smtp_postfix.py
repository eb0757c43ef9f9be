"""The smtp driver against Postfix: PIPELINING, SMTPUTF8, STARTTLS, and what lies in the mailbox afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trustme

from postier.schemas.email import Email
from postier.schemas.errors import EmailRefused, RecipientRefused
from postier.schemas.receipt import Receipt
from tests.drivers import postfix
from tests.drivers.kit import failure, mail, opened, results, wait_for
from tests.drivers.postfix import Postfix

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def server() -> Iterator[Postfix]:
    certificate = AUTHORITY.issue_cert("localhost")
    with postfix.running(certificate.private_key_and_cert_chain_pem.bytes()) as running:
        yield running


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("postfix") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


def whole(number: int, *recipients: str, body: bytes, extra: bytes = b"") -> Email:
    """A mail to which Postfix has nothing to add but its own lines in front."""
    headers = (
        b"From: Office <office@example.org>\r\nTo: someone@example.com\r\n%sSubject: Sample\r\n"
        b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%d@example.org>\r\n\r\n" % (extra, number)
    )
    return mail(number, *recipients, mime=headers + body)


def arrived(server: Postfix, email: Email, copies: int = 1) -> list[bytes]:
    wait_for(lambda: len(server.delivered(email.message_id)) >= copies, 10)
    return server.delivered(email.message_id)


BODIES = [
    b"plain\r\n",
    b".\r\n",
    b"..\r\n.\r\n...\r\n.x\r\n",
    b"\r\n\r\n.\r\n\r\n",
    b"no line end at the end",
    b"y" * 990 + b"\r\n." + b"z" * 990 + b"\r\n",
    b"a line\r\n" * 20_000,
]


@pytest.mark.parametrize("security", ["none", "starttls"])
def test_what_lies_in_the_mailbox_is_what_was_sent(server: Postfix, ca_file: str, security: str) -> None:
    start = 100 if security == "none" else 200
    emails = [whole(start + n, body=body) for n, body in enumerate(BODIES)]

    tls = {"security": security, "ca_file": ca_file, "host": "localhost"}
    with opened(server.port, **tls) as driver:
        outcome = results(driver, *emails)

    assert all(isinstance(result, Receipt) and result.provider_id for result in outcome)
    for email in emails:
        (stored,) = arrived(server, email)
        expected = email.mime.replace(b"\r\n", b"\n")
        assert stored.endswith(expected if expected.endswith(b"\n") else expected + b"\n")
        assert stored.count(b"\nSubject: ") == 1


def test_an_internationalised_mail_arrives(server: Postfix) -> None:
    email = whole(300, "zoé@example.com", body="Où est-elle ?\r\n".encode(), extra="X-Qui: Zoé\r\n".encode())

    with opened(server.port) as driver:
        driver.send(email)

    (stored,) = arrived(server, email)
    assert "zoé@example.com".encode() in stored
    assert stored.endswith(email.mime.replace(b"\r\n", b"\n"))


def test_one_unknown_recipient_of_three_leaves_two_copies(server: Postfix) -> None:
    email = whole(400, "a@example.com", "missing@example.com", "c@example.com", body=b"Hello.\r\n")

    with opened(server.port) as driver:
        receipt = driver.send(email)
        nobody = failure(driver, whole(401, "missing@example.com", body=b"Hello.\r\n"))
        after = driver.send(whole(402, body=b"After.\r\n"))

    assert [(r.recipient, type(r.error)) for r in receipt.refused] == [("missing@example.com", RecipientRefused)]
    assert len(arrived(server, email, copies=2)) == 2
    assert isinstance(nobody, RecipientRefused)
    assert isinstance(after, Receipt)


def test_a_mail_beyond_the_size_limit_is_refused_and_the_session_goes_on(server: Postfix) -> None:
    with opened(server.port) as driver:
        refused, taken = results(driver, whole(500, body=b"a line\r\n" * 500_000), whole(501, body=b"small\r\n"))

    assert isinstance(refused, EmailRefused)
    assert isinstance(taken, Receipt)


def test_the_check_passes_and_reads_what_postfix_offers(server: Postfix, ca_file: str) -> None:
    with opened(server.port, host="localhost", security="starttls", ca_file=ca_file) as driver:
        steps = list(driver.check(test_recipient="someone@example.com"))

    assert all(step.ok for step in steps), steps
    offered = next(step for step in steps if step.name == "greeting").details["extensions"]
    assert {"PIPELINING", "SMTPUTF8"} <= set(offered.replace(",", " ").split())
