"""The smtp driver against Postfix: PIPELINING, SMTPUTF8, STARTTLS, and what lies in the mailbox afterwards."""

from __future__ import annotations

import pytest

from postier.schemas.email import Email
from postier.schemas.errors import EmailRefused, RecipientRefused
from postier.schemas.receipt import Receipt
from tests.drivers.conftest import Files
from tests.drivers.kit import failure, opened, results, wait_for
from tests.drivers.mail_servers.kit import BODIES, assert_arrived, whole
from tests.drivers.mail_servers.postfix import Postfix

pytestmark = pytest.mark.xdist_group("mail servers")


@pytest.fixture
def server(postfix_server: Postfix) -> Postfix:
    return postfix_server


def arrived(server: Postfix, email: Email, copies: int = 1) -> list[bytes]:
    wait_for(lambda: len(server.delivered(email.message_id)) >= copies)
    return server.delivered(email.message_id)


def test_a_mail_sent_without_tls_or_login_lies_in_the_mailbox_as_it_was_sent(server: Postfix) -> None:
    emails = [whole(100 + n, body=body) for n, body in enumerate((*BODIES, b"a line\r\n" * 20_000))]

    with opened(server.port) as driver:
        outcome = results(driver, *emails)

    assert all(isinstance(result, Receipt) and result.provider_id for result in outcome)
    for email in emails:
        assert_arrived(server.logs_in, email)


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


def test_the_check_passes_and_reads_what_postfix_offers(server: Postfix, files: Files) -> None:
    with opened(server.port, host="localhost", security="starttls", ca_file=files.ca_file) as driver:
        steps = list(driver.check(test_recipient="someone@example.com"))

    assert all(step.ok for step in steps), steps
    offered = next(step for step in steps if step.name == "greeting").details["extensions"]
    assert {"PIPELINING", "SMTPUTF8"} <= set(offered.replace(",", " ").split())
