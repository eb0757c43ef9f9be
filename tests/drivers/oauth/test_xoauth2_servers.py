"""XOAUTH2 against servers that others wrote, and the answers of Exchange's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postier.drivers.microsoft import MicrosoftDriver
from postier.drivers.testing import sample_email
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    QuotaExhausted,
    RateLimited,
    SenderRefused,
    TemporaryError,
)
from tests.drivers.conftest import Files, Server
from tests.drivers.kit import ScriptedServer, nth, polite
from tests.drivers.oauth.servers import Mailboxes, dovecot, npm_server
from tests.drivers.oauth.services import MAILBOX, Microsoft
from tests.drivers.oauth.web import json_reply


@pytest.fixture(params=["npm smtp-server", pytest.param("dovecot", marks=pytest.mark.xdist_group("dovecot"))])
def server(
    request: pytest.FixtureRequest, files: Files, tmp_path: Path, aiosmtpd: Callable[..., Server]
) -> Iterator[Mailboxes]:
    if request.param == "dovecot":
        with dovecot(files, aiosmtpd()) as running:
            yield running
        return
    with npm_server(files, tmp_path) as running:
        yield running


def driver_for(microsoft: Microsoft, port: int, **options: Any) -> MicrosoftDriver:
    return microsoft.driver(mode="smtp", smtp_host="localhost", smtp_port=port, graph_url=None, **options)


def test_mail_is_taken_with_a_token_and_a_refused_one_is_replaced_once(
    microsoft_beside: Microsoft, server: Mailboxes
) -> None:
    driver = driver_for(microsoft_beside, server.port)
    server.accept("canary-token-2")  # the first one has been revoked meanwhile

    receipts = [driver.send(sample_email(number)) for number in range(1, 4)]

    assert [receipt.code for receipt in receipts] == [250] * 3
    assert server.logins() == ["canary-token-1", "canary-token-2"]  # and the session is used again
    taken = server.taken()
    assert len(taken) == 3
    for number, mail in enumerate(taken, start=1):
        assert mail.endswith(sample_email(number).mime)  # Dovecot puts its own line in front
    assert len(microsoft_beside.entra.forms) == 2


def test_a_login_that_stays_refused_stops_after_one_new_token(microsoft_beside: Microsoft, server: Mailboxes) -> None:
    driver = driver_for(microsoft_beside, server.port)

    with pytest.raises(AuthenticationFailed) as caught:
        driver.send(sample_email())

    assert caught.value.code == 535
    assert server.logins() == ["canary-token-1", "canary-token-2"]
    assert len(microsoft_beside.entra.forms) == 2


def test_the_check_logs_in_with_a_token_of_its_own(microsoft_beside: Microsoft, server: Mailboxes) -> None:
    server.accept("canary-token-2")
    driver = driver_for(microsoft_beside, server.port)
    assert driver.tokens() == "canary-token-1"

    steps = list(driver.check())

    assert [(step.name, step.ok) for step in steps] == [
        (name, True) for name in ("options", "login", "resolve", "connect", "tls", "greeting", "login", "sender")
    ]
    assert server.logins() == ["canary-token-2"]


def test_hidden_recipients_are_in_the_envelope_alone(microsoft_beside: Microsoft, files: Files, tmp_path: Path) -> None:
    email = replace(sample_email(), recipients=("a@example.com", "b@example.com"))
    with npm_server(files, tmp_path) as server:
        server.accept("canary-token-1")
        driver_for(microsoft_beside, server.port).send(email)
        assert server.recipients() == [["a@example.com", "b@example.com"]]
        assert server.taken() == [email.mime]

    assert b"bcc" not in email.mime.lower()


def test_the_token_is_asked_for_exchange_and_not_for_graph(microsoft: Microsoft) -> None:
    microsoft.driver(mode="smtp").tokens()

    assert microsoft.entra.forms[0]["scope"] == "https://outlook.office365.com/.default"


# --- Exchange's own answers (PROVIDERS 1.6), from a script


def exchange(**answers: Any) -> ScriptedServer:
    offered = ("PIPELINING", "8BITMIME", "AUTH XOAUTH2")
    return ScriptedServer(polite(extensions=offered, **({"AUTH": "235 2.7.0 Authentication successful"} | answers)))


def sent(microsoft: Microsoft, server: ScriptedServer) -> Any:
    driver = driver_for(microsoft, server.port, smtp_security="none")
    try:
        return driver.send(sample_email())
    except DeliveryError as error:
        return error


REFUSED = "535 5.7.3 Authentication unsuccessful"


def test_exchange_refuses_at_once_and_takes_the_new_token_on_the_same_session(microsoft: Microsoft) -> None:
    with exchange(AUTH=nth(REFUSED, then="235 2.7.0 Authentication successful")) as server:
        receipt = sent(microsoft, server)

    assert receipt.code == 250
    assert server.verbs().count("AUTH") == 2
    assert server.connections == 1
    assert len(microsoft.entra.forms) == 2


def test_a_second_5_7_3_stops_the_account(microsoft: Microsoft) -> None:
    with exchange(AUTH=REFUSED) as server:
        error = sent(microsoft, server)

    assert isinstance(error, AuthenticationFailed)
    assert (error.code, error.enhanced) == (535, "5.7.3")
    assert server.verbs().count("AUTH") == 2
    assert len(microsoft.entra.forms) == 2


AT_LOGIN = [
    (REFUSED, AuthenticationFailed),
    (
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant",
        AuthenticationFailed,
    ),
    ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled", AuthenticationFailed),
    ("535 5.7.139 Authentication unsuccessful, the user credentials were incorrect", AuthenticationFailed),
    ("550 5.7.30 Basic authentication is not supported for Client Submission", AuthenticationFailed),
    ("454 4.7.0 Temporary authentication failure", TemporaryError),
]
AT_MAIL = [
    ("MAIL", "530 5.7.57 Client not authenticated to send mail", AuthenticationFailed),
    ("DOT", "554 5.2.252 SendAsDenied; office@contoso.example not allowed to send as x@contoso.example", SenderRefused),
    ("DOT", "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied", SenderRefused),
    ("MAIL", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", SenderRefused),
    ("DOT", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", RateLimited),
    ("DOT", "432 4.3.2 Concurrent connections limit exceeded [STOREDRV]", RateLimited),
    ("DOT", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; quota exceeded", QuotaExhausted),
    ("DOT", "554 5.2.2 STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionQuotaExceeded", SenderRefused),
    ("MAIL", "451 4.7.0 Temporary server error. Please try again later. PRX4", TemporaryError),
    ("MAIL", "451 4.7.500 Server busy. Please try again later", RateLimited),
    ("MAIL", "452 4.5.3 Too many recipients", RateLimited),
    ("DOT", "550 5.7.515 Access denied, sending domain does not meet the required authentication level", SenderRefused),
]


@pytest.mark.parametrize(("reply", "kind"), AT_LOGIN)
def test_every_refusal_of_exchange_at_login_has_its_error(
    microsoft: Microsoft, reply: str, kind: type[DeliveryError]
) -> None:
    with exchange(AUTH=reply) as server:
        error = sent(microsoft, server)

    assert type(error) is kind
    assert not server.bodies


@pytest.mark.parametrize(("verb", "reply", "kind"), AT_MAIL)
def test_every_refusal_of_exchange_at_a_mail_has_its_error(
    microsoft: Microsoft, verb: str, reply: str, kind: type[DeliveryError]
) -> None:
    with exchange(**{verb: reply}) as server:
        error = sent(microsoft, server)

    assert type(error) is kind
    assert MAILBOX not in error.text


def test_a_crowd_of_sessions_makes_one_token_request(microsoft: Microsoft) -> None:
    with exchange() as server:
        driver = driver_for(microsoft, server.port, smtp_security="none")
        with ThreadPoolExecutor(30) as pool:
            codes = list(pool.map(lambda number: driver.send(sample_email(number)).code, range(30)))

    assert codes == [250] * 30
    assert len(microsoft.entra.forms) == 1


def test_a_login_that_is_away_sends_nothing(microsoft: Microsoft) -> None:
    microsoft.entra.always = json_reply({}, 503, Retry_After="9")
    with exchange() as server:
        error = sent(microsoft, server)

    assert isinstance(error, TemporaryError)
    assert error.retry_after == 9
    assert "AUTH" not in server.verbs()
