"""Scaleway Transactional Email: the request whole, and each documented answer."""

from __future__ import annotations

from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import Any

import pytest

from postier.drivers.scaleway import ScalewayDriver
from postier.schemas.email import Mailbox
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
from tests.drivers.http.fake import SECRET, FakeApi, Reply, always, failure, made, mail, receipt

PROJECT = "11111111-2222-3333-4444-555555555555"
OPTIONS: dict[str, Any] = {"secret_key": SECRET, "project_id": PROJECT}
ROOM = "/transactional-email/v1alpha1/regions/fr-par"
ACCEPTED = Reply(
    200,
    {
        "emails": [
            {
                "id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
                "message_id": "00000000-1111-2222-3333-444444444444",
                "project_id": PROJECT,
                "mail_from": "office@example.org",
                "mail_rcpt": "someone@example.com",
                "rcpt_type": "to",
                "status": "new",
                "status_details": "not yet processed",
            }
        ]
    },
)


def said(status: int, kind: str, message: str, **more: Any) -> Reply:
    return Reply(status, {"type": kind, "message": message, **more})


def wrong(argument: str, reason: str = "format", help_message: str = "must be valid") -> Reply:
    details = [{"argument_name": argument, "reason": reason, "help_message": help_message}]
    return said(400, "invalid_arguments", "invalid argument(s)", details=details)


DENIED = said(401, "denied_authentication", "authentication is denied", method="api_key", reason="not_found")
QUOTA = [{"resource": "TemEmails", "quota": 300, "current": 300}]


class TestContract(ApiContract):
    driver = ScalewayDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = f"{ROOM}/domains?project_id={PROJECT}&page_size=1"
    probed = Reply(200, {"total_count": 1, "domains": []})
    answers = {  # noqa: RUF012
        "refuses_login": DENIED,
        "refuses_recipient": wrong("to"),
        "busy": said(409, "transient_state", "resource is in a transient state"),
        "throttles": said(429, "too_many_requests", "too many requests"),
    }
    wrong_options = (
        ({"secret_key": ""}, "secret_key"),
        ({"project_id": "mine"}, "project_id"),
        ({"region": "../.."}, "region"),
    )


def test_a_mail_is_one_request_with_every_field() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        told = receipt(made(ScalewayDriver, fake, **OPTIONS))

    assert (told.provider_id, told.status) == ("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "queued")
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", f"{ROOM}/emails")
    assert request.headers == {
        "host": f"localhost:{fake.port}",
        "user-agent": "postier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "x-auth-token": SECRET,
        "content-length": str(len(request.body)),
    }
    assert request.json() == {
        "project_id": PROJECT,
        "from": {"email": "office@example.org", "name": "The office"},
        "to": [{"email": "someone@example.com", "name": "Zoë, Example"}],
        "subject": "Été: your link",
        "text": "Hello.\n",
        "html": "<p>Hello.</p>",
        "additional_headers": [
            {"key": "Auto-Submitted", "value": "auto-generated"},
            {"key": "List-Unsubscribe", "value": "<https://example.org/u/1>"},
            {"key": "Reply-To", "value": "Help <help@example.org>"},
        ],
    }


@pytest.mark.parametrize(
    "name", ["=?utf-8?q?Boss_=28CEO=29?=", "=?utf-8?b?DQpCY2M6IHFAei5leGFtcGxl?=", "é =?utf-8?q?x?="]
)
def test_a_visitors_name_stays_what_was_typed(name: str) -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(ScalewayDriver, fake, **OPTIONS), mail(reply_to=Mailbox("v@example.com", name)))

    ((shown, address),) = getaddresses([fake.requests[0].json()["additional_headers"][-1]["value"]])
    assert (str(make_header(decode_header(shown))), address) == (name, "v@example.com")


def test_a_packet_goes_to_bcc() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(ScalewayDriver, fake, **OPTIONS), mail("a@example.com", "b@example.com"))

    sent = fake.requests[0].json()
    assert sent["to"] == [{"email": "office@example.org", "name": "The office"}]
    assert sent["bcc"] == [{"email": "a@example.com"}, {"email": "b@example.com"}]


def test_an_internationalised_address_is_refused_before_anything_leaves() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        error = failure(made(ScalewayDriver, fake, **OPTIONS), mail("zoë@example.com", smtputf8=True))
        assert fake.connections == 0

    assert isinstance(error, EmailRefused)


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (DENIED, AuthenticationFailed, {}),
        (said(403, "permissions_denied", "insufficient permissions"), SenderRefused, {}),
        (said(403, "quotas_exceeded", "quota(s) exceeded", details=QUOTA), QuotaExhausted, {"until": 3600.0}),
        (said(404, "not_found", "resource is not found", resource="project"), SenderRefused, {}),
        (said(412, "precondition_failed", "domain is not checked"), SenderRefused, {}),
        (said(409, "transient_state", "in a transient state"), TemporaryError, {}),
        (said(423, "resource_locked", "locked"), TemporaryError, {}),
        (wrong("from"), SenderRefused, {}),
        (wrong("project_id"), SenderRefused, {}),
        (wrong("to"), RecipientRefused, {"suppress": False}),
        (wrong("bcc"), RecipientRefused, {}),
        (wrong("to[0].email"), RecipientRefused, {}),
        (wrong("reply_to"), EmailRefused, {}),
        (wrong("bcc", "constraint", "at most 10 recipients"), RateLimited, {"too_many_recipients": True}),
        (wrong("subject", "constraint"), EmailRefused, {}),
        (said(429, "too_many_requests", "too many requests"), RateLimited, {}),
        (said(500, "internal", "internal error"), TemporaryError, {}),
        (Reply(500, b""), OutcomeUnknown, {}),
        (Reply(504, b""), OutcomeUnknown, {}),
        (Reply(200, {"emails": []}), OutcomeUnknown, {"evidence": {"status": 200}}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(ScalewayDriver, reply, expected, options=OPTIONS, **attributes)
