"""SendGrid: the request whole, and each documented answer."""

from __future__ import annotations

import time
from typing import Any

import pytest

from postier.drivers.sendgrid import SendgridDriver
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)
from tests.drivers.http.contract import ApiContract, refused_with
from tests.drivers.http.fake import SECRET, FakeApi, Reply, always, made, mail, receipt

OPTIONS: dict[str, Any] = {"api_key": SECRET}
ACCEPTED = Reply(202, b"", {"X-Message-Id": "14c5d75ce93.dfd.64b469"})


def said(status: int, message: str, field: str | None = None, **headers: str) -> Reply:
    return Reply(status, {"errors": [{"message": message, "field": field, "help": None}]}, headers)


REVOKED = said(401, "The provided authorization grant is invalid, expired, or revoked")
BAD_ADDRESS = said(400, "Does not contain a valid address.", "personalizations.0.to.0.email")


class TestContract(ApiContract):
    driver = SendgridDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = "/v3/scopes"
    probed = Reply(200, {"scopes": ["mail.send", "sender_verification_eligible"]})
    answers = {  # noqa: RUF012
        "refuses_login": REVOKED,
        "refuses_recipient": BAD_ADDRESS,
        "busy": said(503, "Service unavailable"),
        "throttles": said(429, "too many requests"),
    }
    wrong_options = (
        ({"api_key": ""}, "api_key"),
        ({"api_key": f"{SECRET}\n"}, "api_key"),
        ({"region": "mars"}, "region"),
        ({"timeout": 0}, "timeout"),
        ({"base_url": "ftp://localhost"}, "base_url"),
        ({"base_url": "http://api.example.com"}, "base_url"),
        ({"base_url": "https://user:pw@api.example.com"}, "base_url"),
        ({"ca_file": "/nonexistent/ca.pem"}, "ca_file"),
    )


def test_a_mail_is_one_request_with_every_field() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        told = receipt(made(SendgridDriver, fake, **OPTIONS))

    assert (told.provider_id, told.status, told.code) == ("14c5d75ce93.dfd.64b469", "queued", 202)
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v3/mail/send")
    assert request.headers == {
        "host": f"localhost:{fake.port}",
        "user-agent": "postier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": f"Bearer {SECRET}",
        "content-length": str(len(request.body)),
    }
    assert request.json() == {
        "personalizations": [{"to": [{"email": "someone@example.com", "name": "Zoë, Example"}]}],
        "from": {"email": "office@example.org", "name": "The office"},
        "reply_to": {"email": "help@example.org", "name": "Help"},
        "subject": "Été: your link",
        "content": [
            {"type": "text/plain", "value": "Hello.\n"},
            {"type": "text/html", "value": "<p>Hello.</p>"},
        ],
        "headers": {
            "Message-ID": "<d-0001@example.org>",
            "Auto-Submitted": "auto-generated",
            "List-Unsubscribe": "<https://example.org/u/1>",
        },
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": {"enable": False},
        },
    }


def test_a_packet_is_one_mail_per_recipient_and_none_to_the_sender() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(SendgridDriver, fake, **OPTIONS), mail("a@example.com", "b@example.com", "a@example.com"))

    assert fake.requests[0].json()["personalizations"] == [
        {"to": [{"email": "a@example.com"}]},
        {"to": [{"email": "b@example.com"}]},
    ]


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (REVOKED, AuthenticationFailed, {}),
        (said(401, "Maximum credits exceeded"), QuotaExhausted, {"until": 3600.0}),
        (said(401, "Authenticated user is not authorized to send mail"), AuthenticationFailed, {}),
        (said(403, "access forbidden"), AuthenticationFailed, {}),
        (
            said(
                403, "The from address does not match a verified Sender Identity. Mail cannot be sent until …", "from"
            ),
            SenderRefused,
            {},
        ),
        (said(403, "Too many bad requests. Temporary block"), RateLimited, {}),
        (BAD_ADDRESS, RecipientRefused, {"suppress": False}),
        (said(400, "The from email does not contain a valid address.", "from.email"), SenderRefused, {}),
        (
            said(400, "There is a limit of 1000 total recipients (to + cc + bcc) per request."),
            RateLimited,
            {"too_many_recipients": True},
        ),
        (said(400, "The subject is required.", "subject"), EmailRefused, {}),
        (said(413, "The JSON payload you have included in your request is too large."), EmailRefused, {}),
        (said(429, "too many requests"), RateLimited, {"retry_after": None}),
        (said(429, "too many requests", **{"Retry-After": "17"}), RateLimited, {"retry_after": 17.0}),
        (said(451, "Unavailable due to data residency restrictions"), SenderRefused, {}),
        (said(500, "Internal server error"), TemporaryError, {}),
        (Reply(500, b"<html>oops</html>"), OutcomeUnknown, {"evidence": {"status": 500}}),
        (Reply(502, b"<html>bad gateway</html>"), OutcomeUnknown, {"evidence": {"status": 502}}),
        (said(504, "upstream timed out"), OutcomeUnknown, {"evidence": {"status": 504}}),
        (said(503, "not available", **{"Retry-After": "120"}), TemporaryError, {"retry_after": 120.0}),
        (Reply(503, b""), TemporaryError, {}),
        (Reply(200, b""), OutcomeUnknown, {"evidence": {"status": 200}}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(SendgridDriver, reply, expected, options=OPTIONS, **attributes)


def test_the_end_of_the_rate_window_is_the_time_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    monkeypatch.setattr(time, "time", lambda: float(now))
    reply = said(429, "too many requests", **{"X-RateLimit-Reset": str(now + 40)})

    refused_with(SendgridDriver, reply, RateLimited, options=OPTIONS, retry_after=40.0)


def test_the_check_misses_the_right_to_send() -> None:
    with FakeApi(always(Reply(200, {"scopes": ["alerts.read"]}))) as fake:
        driver = made(SendgridDriver, fake, **OPTIONS)
        steps = list(driver.check())

    assert [(step.name, step.ok) for step in steps] == [
        ("resolve", True),
        ("connect", True),
        ("tls", True),
        ("login", False),
    ]
    assert "mail.send" in steps[-1].words
    assert steps[2].details["names"] == "localhost"


def test_the_check_sends_a_test_mail_when_asked_to() -> None:
    with FakeApi(lambda request: TestContract.probed if request.method == "GET" else ACCEPTED) as fake:
        driver = made(SendgridDriver, fake, **OPTIONS)
        steps = list(driver.check(test_recipient="someone@example.com"))

    assert (steps[-1].name, steps[-1].ok) == ("test_mail", True)
    assert steps[-1].details == {"provider_id": "14c5d75ce93.dfd.64b469"}
    sent = fake.posts()[0].json()
    assert sent["personalizations"] == [{"to": [{"email": "someone@example.com"}]}]
    assert sent["subject"] == "Test mail"


def test_the_regions_have_hosts_of_their_own() -> None:
    for region, host in (("global", "https://api.sendgrid.com"), ("eu", "https://api.eu.sendgrid.com")):
        options = SendgridDriver.Options.model_validate({"api_key": SECRET, "region": region})
        assert SendgridDriver(options, sender=mail().sender).base == host
