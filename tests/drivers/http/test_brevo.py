"""Brevo: the request whole, its idempotency key, and each documented answer."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from postier.drivers.brevo import BrevoDriver
from postier.drivers.testing import FAILING
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
from tests.drivers.http.fake import SECRET, FakeApi, Reply, always, failure, hang_up, made, mail, receipt

OPTIONS: dict[str, Any] = {"api_key": SECRET}
ACCEPTED = Reply(201, {"messageId": "<201801020304.1234567890@smtp-relay.mailin.example>"})


def said(status: int, code: str, message: str, **headers: str) -> Reply:
    return Reply(status, {"code": code, "message": message}, headers)


WRONG_KEY = said(401, "unauthorized", "Key not found")
BAD_ADDRESS = said(400, "invalid_parameter", "email is not valid in to")


class TestContract(ApiContract):
    driver = BrevoDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = "/v3/account"
    probed = Reply(200, {"email": "owner@example.org", "plan": [{"type": "free", "credits": 300}]})
    answers = {  # noqa: RUF012
        "refuses_login": WRONG_KEY,
        "refuses_recipient": BAD_ADDRESS,
        "busy": Reply(503, b""),
        "throttles": said(429, "too_many_requests", "rate limited"),
    }
    # Its key makes a lost answer safe to try again: see the tests below.
    behaviours = frozenset(("accepts", *FAILING)) - {"cuts_after_handover"}
    wrong_options = (({"api_key": ""}, "api_key"),)


def test_a_mail_is_one_request_with_every_field() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        told = receipt(made(BrevoDriver, fake, **OPTIONS))

    assert told.provider_id == "<201801020304.1234567890@smtp-relay.mailin.example>"
    assert (told.status, told.code) == ("queued", 201)
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v3/smtp/email")
    assert request.headers == {
        "host": f"localhost:{fake.port}",
        "user-agent": "postier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "api-key": SECRET,
        "content-length": str(len(request.body)),
    }
    sent = request.json()
    assert uuid.UUID(sent["headers"].pop("idempotencyKey")).version == 5
    assert sent == {
        "sender": {"email": "office@example.org", "name": "The office"},
        "to": [{"email": "someone@example.com", "name": "Zoë, Example"}],
        "replyTo": {"email": "help@example.org", "name": "Help"},
        "subject": "Été: your link",
        "textContent": "Hello.\n",
        "htmlContent": "<p>Hello.</p>",
        "headers": {"Auto-Submitted": "auto-generated", "List-Unsubscribe": "<https://example.org/u/1>"},
    }


def test_the_key_stays_with_the_delivery_over_all_attempts() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        for delivery_id in ("d-1", "d-1", "d-2"):
            receipt(made(BrevoDriver, fake, **OPTIONS), mail(delivery_id=delivery_id))

    first, second, other = (request.json()["headers"]["idempotencyKey"] for request in fake.requests)
    assert first == second != other


def test_a_packet_goes_to_bcc() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(BrevoDriver, fake, **OPTIONS), mail("a@example.com", "b@example.com"))

    sent = fake.requests[0].json()
    assert sent["to"] == [{"email": "office@example.org", "name": "The office"}]
    assert sent["bcc"] == [{"email": "a@example.com"}, {"email": "b@example.com"}]


@pytest.mark.parametrize("answer", [hang_up, Reply(502, b"<html>"), Reply(500, b"")])
def test_a_lost_answer_is_tried_again(answer: Any) -> None:
    with FakeApi(always(answer)) as fake:
        assert type(failure(made(BrevoDriver, fake, **OPTIONS))) is TemporaryError


@pytest.mark.parametrize("code", ["duplicate_parameter", "duplicate_request"])
def test_a_key_that_was_used_before_leaves_the_outcome_unknown(code: str) -> None:
    error = refused_with(BrevoDriver, said(400, code, "Idempotency key already used"), OutcomeUnknown, options=OPTIONS)

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (WRONG_KEY, AuthenticationFailed, {}),
        (said(401, "unauthorized", "We have detected you are using an unrecognised IP"), AuthenticationFailed, {}),
        (said(402, "not_enough_credits", "You do not have enough credits"), QuotaExhausted, {"until": 3600.0}),
        (said(403, "permission_denied", "Your SMTP account is not yet activated."), SenderRefused, {}),
        (said(403, "account_under_validation", "under validation"), SenderRefused, {}),
        (said(400, "invalid_parameter", "valid sender email required"), SenderRefused, {}),
        (said(400, "missing_parameter", "sender is missing"), SenderRefused, {}),
        (BAD_ADDRESS, RecipientRefused, {"suppress": False}),
        (said(400, "INVALID_PARAMETER", "email is not valid in bcc"), RecipientRefused, {}),
        (said(400, "invalid_parameter", "subject is empty"), EmailRefused, {}),
        (said(429, "too_many_requests", "rate limited"), RateLimited, {}),
        (
            said(429, "too_many_requests", "rate limited", **{"x-sib-ratelimit-reset": "45"}),
            RateLimited,
            {"retry_after": 45.0},
        ),
        (said(500, "internal_error", "oops"), TemporaryError, {}),
        (Reply(201, b"created"), TemporaryError, {}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(BrevoDriver, reply, expected, options=OPTIONS, **attributes)
