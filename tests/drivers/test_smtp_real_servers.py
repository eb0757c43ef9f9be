"""The smtp driver against aiosmtpd: TLS, certificates, limits and the check. Other servers are in `mail_servers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postier.schemas.errors import AccountError, AuthenticationFailed, DeliveryError, RecipientRefused, Unreachable
from postier.schemas.receipt import Receipt
from tests.drivers.conftest import PASSWORD, Certificates, Server
from tests.drivers.kit import failure, mail, opened, results

Start = Callable[..., Server]
LOGIN = {"username": "office@example.org", "password": PASSWORD}


def over_tls(certificates: Certificates, **changes: Any) -> dict[str, Any]:
    return {"host": "localhost", "security": "starttls", "ca_file": certificates.ca_file} | changes


def test_a_mail_arrives_byte_for_byte_and_its_receipt_names_the_providers_id(aiosmtpd: Start) -> None:
    server = aiosmtpd()
    body = b".\r\n..two\r\nplain\r\n.\r\n...\r\n" + b"x" * 990 + b"\r\n.end\r\n"

    with opened(server.port) as driver:
        receipt = driver.send(mail(1, "a@example.com", "b@example.com", body=body))

    (envelope,) = server.inbox.taken
    assert envelope.content == mail(1, body=body).mime
    assert envelope.rcpt_tos == ["a@example.com", "b@example.com"]
    assert envelope.mail_from == "bounces@example.org"
    assert (receipt.provider_id, receipt.code, receipt.enhanced) == ("A1B2C3", 250, "2.0.0")


@pytest.mark.parametrize("auth", ["auto", "plain", "login"])
def test_starttls_and_a_login_let_mail_through(aiosmtpd: Start, certificates: Certificates, auth: str) -> None:
    server = aiosmtpd(tls_context=certificates.good, require_starttls=True, logs_in=True)

    with opened(server.port, **over_tls(certificates, auth=auth, **LOGIN)) as driver:
        outcome = results(driver, mail(1), mail(2), mail(3))

    assert all(isinstance(result, Receipt) for result in outcome)
    assert len(server.inbox.taken) == 3
    (login,) = server.inbox.logins  # one session served all three
    assert login == ("LOGIN" if auth == "login" else "PLAIN", b"office@example.org", PASSWORD.encode())


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_an_idle_session_over_tls_serves_the_next_mail_too(aiosmtpd: Start, certificates: Certificates) -> None:
    server = aiosmtpd(ssl_context=certificates.good, auth_require_tls=False, logs_in=True)

    with opened(server.port, **over_tls(certificates, security="tls", **LOGIN)) as driver:
        for number in range(4):
            driver.send(mail(number))

    assert len(server.inbox.taken) == 4
    assert len(server.inbox.logins) == 1


def test_implicit_tls_takes_mail(aiosmtpd: Start, certificates: Certificates) -> None:
    server = aiosmtpd(ssl_context=certificates.good)

    with opened(server.port, **over_tls(certificates, security="tls")) as driver:
        driver.send(mail(1))
        driver.send(mail(2))

    assert len(server.inbox.taken) == 2


@pytest.mark.parametrize("auth", ["plain", "login"])
def test_a_wrong_password_is_tried_once_for_a_whole_conversation_and_never_shown(
    aiosmtpd: Start, certificates: Certificates, auth: str
) -> None:
    server = aiosmtpd(tls_context=certificates.good, logs_in=True)
    wrong = {"username": "office@example.org", "password": "wrong-secret", "auth": auth}

    with opened(server.port, **over_tls(certificates, **wrong)) as driver:
        outcome = results(driver, mail(1), mail(2), mail(3))

    assert len(server.inbox.logins) == 1
    for result in outcome:
        assert isinstance(result, AuthenticationFailed)
        assert (result.code, result.stage) == (535, "auth")
        assert "wrong-secret" not in repr(result)
    assert not server.inbox.taken


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("which", "words", "cause"),
    [
        ("other_name", "other name", "certificate_other_name"),
        ("expired", "expired", "certificate_expired"),
        ("self_signed", "certificate: ", "certificate_not_trusted"),
    ],
)
def test_a_certificate_that_is_not_the_hosts_parks_the_account_and_nothing_is_sent(
    aiosmtpd: Start, certificates: Certificates, security: str, which: str, words: str, cause: str
) -> None:
    context = getattr(certificates, which)
    server = aiosmtpd(
        **({"tls_context": context} if security == "starttls" else {"ssl_context": context}), logs_in=True
    )

    with opened(server.port, **over_tls(certificates, security=security, **LOGIN)) as driver:
        error = failure(driver, mail(1))

    assert type(error) is AccountError
    assert error.text.startswith("certificate: ")
    assert words in error.text
    assert error.cause == cause
    assert not server.inbox.logins
    assert not server.inbox.taken


def test_starttls_never_falls_back_to_clear_text(aiosmtpd: Start) -> None:
    server = aiosmtpd()

    with opened(server.port, security="starttls", **LOGIN) as driver:
        error = failure(driver, mail(1))

    assert isinstance(error, Unreachable)
    assert error.cause == "tls_unavailable"
    assert error.stage == "starttls"
    assert not server.inbox.taken


def test_an_internationalised_mail_needs_a_server_that_takes_it(aiosmtpd: Start) -> None:
    wide = mail(1, "zoé@exämple.com", body="Où?\r\n".encode(), smtputf8=True)
    able, unable = aiosmtpd(enable_SMTPUTF8=True), aiosmtpd(enable_SMTPUTF8=False)

    with opened(able.port) as driver:
        driver.send(wide)
    with opened(unable.port) as driver:
        refused, taken = results(driver, wide, mail(2))

    assert able.inbox.taken[0].rcpt_tos == ["zoé@exämple.com"]
    assert able.inbox.taken[0].smtp_utf8
    assert isinstance(refused, RecipientRefused)
    assert refused.text.startswith("no_smtputf8")
    assert refused.cause == "no_smtputf8"
    assert isinstance(taken, Receipt)
    assert len(unable.inbox.taken) == 1


def test_a_mail_bigger_than_the_server_says_is_refused_before_a_word(aiosmtpd: Start) -> None:
    server = aiosmtpd(data_size_limit=5_000)

    with opened(server.port) as driver:
        error, taken = results(driver, mail(1, body=b"x\r\n" * 2_000), mail(2))

    assert isinstance(error, DeliveryError)
    assert error.cause == "email_refused"
    assert isinstance(taken, Receipt)


def test_the_check_tells_each_step_with_the_certificates_names_and_dates(
    aiosmtpd: Start, certificates: Certificates
) -> None:
    server = aiosmtpd(tls_context=certificates.good, require_starttls=True, logs_in=True)

    with opened(server.port, **over_tls(certificates, **LOGIN)) as driver:
        steps = list(driver.check(test_recipient="someone@example.com"))

    names = [step.name for step in steps]
    assert names == ["resolve", "connect", "tls", "greeting", "login", "sender", "test_mail"]
    assert all(step.ok and not step.advice and step.seconds >= 0 for step in steps)
    tls = steps[2].details
    assert tls["protocol"] in ("TLSv1.2", "TLSv1.3")
    assert "localhost" in tls["names"]
    assert tls["valid_from"]
    assert tls["valid_until"]
    assert "SIZE" in steps[3].details["extensions"]
    assert len(server.inbox.taken) == 1


@pytest.mark.parametrize(
    ("settings", "options", "step"),
    [
        ({"tls_context": "other_name"}, {}, "tls"),
        ({"ssl_context": "good"}, {"timeout_ms": 300}, "tls"),
        ({}, {}, "tls"),
        ({"tls_context": "good", "logs_in": True}, {"username": "u@example.org", "password": "bad"}, "login"),
    ],
)
def test_the_check_stops_at_the_step_that_fails_and_gives_one_sentence_of_advice(
    aiosmtpd: Start, certificates: Certificates, settings: dict[str, Any], options: dict[str, Any], step: str
) -> None:
    found = {k: getattr(certificates, v) if isinstance(v, str) else v for k, v in settings.items()}
    server = aiosmtpd(**found)

    with opened(server.port, **over_tls(certificates, **options)) as driver:
        steps = list(driver.check())

    assert [told.ok for told in steps[:-1]] == [True] * (len(steps) - 1)
    assert (steps[-1].name, steps[-1].ok) == (step, False)
    assert steps[-1].words
    assert steps[-1].advice.endswith(".")
