"""The smtp driver with a login, at servers that others wrote: what lies there is what was sent, octet for octet."""

from __future__ import annotations

import smtplib
import ssl
from itertools import count

import pytest

from postier.schemas.email import Email
from postier.schemas.errors import AuthenticationFailed, RecipientRefused
from postier.schemas.receipt import Receipt
from tests.conftest import PATIENCE
from tests.drivers.conftest import Files
from tests.drivers.kit import opened, results
from tests.drivers.mail_servers.kit import BODIES, MailServer, assert_arrived, whole

pytestmark = pytest.mark.xdist_group("mail servers")

NUMBERS = count(1_000)
WIDE = "Où est-elle ?\r\n.\r\n..naïve\r\n\r\n".encode() + b"latin-1 octets: \xe9\xff\r\n\r\n\r\n"


def wide() -> Email:
    """An internationalised address, an UTF-8 header, and a body of eight-bit octets."""
    return whole(next(NUMBERS), "zoé@exämple.com", body=WIDE, extra="X-Qui: Zoé\r\n".encode(), smtputf8=True)


@pytest.mark.parametrize("auth", ["plain", "login"])
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_what_arrives_after_a_login_is_what_was_sent(
    server: MailServer, files: Files, security: str, auth: str
) -> None:
    sent = [whole(next(NUMBERS), body=body) for body in BODIES]
    international = wide()

    with opened(**server.options(security, files.ca_file, auth=auth)) as driver:
        *receipts, last, after = results(driver, *sent, international, whole(next(NUMBERS), body=b"after\r\n"))

    assert [type(result) for result in (*receipts, after)] == [Receipt] * (len(BODIES) + 1)
    for email in sent:
        assert_arrived(server, email)
    if server.utf8:
        assert isinstance(last, Receipt)
        assert_arrived(server, international)
    else:
        assert isinstance(last, RecipientRefused)
        assert last.text.startswith("no_smtputf8")
        assert not server.arrived(international.message_id)


@pytest.mark.parametrize(("security", "auth"), [("starttls", "plain"), ("tls", "login")])
def test_a_wrong_password_is_told_in_the_servers_words_and_nothing_is_sent(
    server: MailServer, files: Files, security: str, auth: str
) -> None:
    sent = whole(next(NUMBERS), body=b"never\r\n")
    options = server.options(security, files.ca_file, auth=auth, password="wrong-secret")

    with opened(**options) as driver:
        (refused,) = results(driver, sent)

    assert isinstance(refused, AuthenticationFailed)
    assert (refused.code, refused.stage) == (535, "auth")
    assert server.refuses in refused.text
    assert "wrong-secret" not in repr(refused)
    assert not server.arrived(sent.message_id)


def test_each_server_lets_nobody_send_without_a_login_and_offers_what_we_say_it_does(
    server: MailServer, files: Files
) -> None:
    with smtplib.SMTP("localhost", server.starttls, timeout=PATIENCE) as plain:
        plain.starttls(context=ssl.create_default_context(cafile=files.ca_file))
        plain.ehlo("test.example.org")
        assert plain.has_extn("smtputf8") is server.utf8
        assert {"PLAIN", "LOGIN"} <= set(plain.esmtp_features["auth"].split())
        refusals = [plain.mail("office@example.org")[0], plain.rcpt("someone@example.com")[0]]
    assert max(refusals) >= 500
