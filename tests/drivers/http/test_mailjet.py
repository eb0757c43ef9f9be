"""Mailjet: the request whole, and each documented answer."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from postier.drivers.mailjet import MailjetDriver
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)
from tests.drivers.http.contract import ApiContract, refused_with
from tests.drivers.http.fake import SECRET, FakeApi, Reply, always, made, mail, receipt

OPTIONS: dict[str, Any] = {"api_key": "public-key", "secret_key": SECRET}
ACCEPTED = Reply(
    200,
    {
        "Messages": [
            {
                "Status": "success",
                "To": [
                    {
                        "Email": "someone@example.com",
                        "MessageUUID": "cb927469-36fd-4c02-bce4-0d199929a207",
                        "MessageID": 70650219165027410,
                        "MessageHref": "https://api.mailjet.com/v3/message/70650219165027410",
                    }
                ],
            }
        ]
    },
)


def said(status: int, code: str, message: str, *related: str) -> Reply:
    error = {
        "ErrorIdentifier": "f480a5a2-0334-4e08-b2b7-f372ce5669e0",
        "ErrorCode": code,
        "StatusCode": status,
        "ErrorMessage": message,
        "ErrorRelatedTo": list(related),
    }
    return Reply(status, {"Messages": [{"Status": "error", "Errors": [error]}]})


def at_once(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"ErrorIdentifier": "x", "ErrorCode": code, "StatusCode": status, "ErrorMessage": message})


WRONG_KEY = at_once(401, "mj-0015", "API key authentication/authorization failure.")
BAD_ADDRESS = said(400, "mj-0013", '"invalid@123.4" is an invalid email address.', "To[0].Email")


class TestContract(ApiContract):
    driver = MailjetDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = "/v3/REST/sender?Limit=1"
    probed = Reply(200, {"Count": 1, "Data": [], "Total": 3})
    answers = {  # noqa: RUF012
        "refuses_login": WRONG_KEY,
        "refuses_recipient": BAD_ADDRESS,
        "busy": Reply(503, b""),
        "throttles": Reply(429, b"Rate limit exceeded", {"Content-Type": "text/html"}),
    }
    wrong_options = (({"secret_key": ""}, "secret_key"), ({"region": "fr"}, "region"))


def test_a_mail_is_one_request_with_every_field() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        email = mail(headers=(("Auto-Submitted", "auto-generated"), ("List-Id", "<a.example.org>")))
        told = receipt(made(MailjetDriver, fake, **OPTIONS), email)

    assert (told.provider_id, told.status, told.code) == ("70650219165027410", "queued", 200)
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v3.1/send")
    assert request.headers == {
        "host": f"localhost:{fake.port}",
        "user-agent": "postier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": "Basic " + base64.b64encode(f"public-key:{SECRET}".encode()).decode(),
        "content-length": str(len(request.body)),
    }
    assert request.json() == {
        "Messages": [
            {
                "From": {"Email": "office@example.org", "Name": "The office"},
                "To": [{"Email": "someone@example.com", "Name": "Zoë, Example"}],
                "ReplyTo": {"Email": "help@example.org", "Name": "Help"},
                "Subject": "Été: your link",
                "TextPart": "Hello.\n",
                "HTMLPart": "<p>Hello.</p>",
                "Headers": {"Auto-Submitted": "auto-generated"},  # Mailjet refuses mail with a List-Id
                "CustomID": "d-0001",
                "TrackOpens": "disabled",
                "TrackClicks": "disabled",
            }
        ]
    }


def test_a_packet_goes_to_bcc() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(MailjetDriver, fake, **OPTIONS), mail("a@example.com", "b@example.com"))

    (sent,) = fake.requests[0].json()["Messages"]
    assert sent["To"] == [{"Email": "office@example.org", "Name": "The office"}]
    assert sent["Bcc"] == [{"Email": "a@example.com"}, {"Email": "b@example.com"}]


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (WRONG_KEY, AuthenticationFailed, {}),
        (at_once(401, "mj-0001", "The API key is suspended"), AuthenticationFailed, {}),
        (said(403, "send-0006", "not permitted to use a Sender header", "SenderID"), SenderRefused, {}),
        (said(403, "send-0007", "not validated", "SenderID"), SenderRefused, {}),
        (said(403, "send-0008", '"x" is not an authorized sender email address', "From"), SenderRefused, {}),
        (BAD_ADDRESS, RecipientRefused, {"suppress": False}),
        (said(400, "mj-0013", "invalid email address", "Bcc[3].Email"), RecipientRefused, {}),
        (said(400, "mj-0013", "invalid email address", "From.Email"), SenderRefused, {}),
        (said(400, "mj-0013", "invalid email address", "ReplyTo.Email"), EmailRefused, {}),
        (said(400, "send-0015", "too many recipients", "To", "CC", "Bcc"), RateLimited, {"too_many_recipients": True}),
        (said(400, "send-0003", "At least HTMLPart or TextPart must be provided", "HTMLPart"), EmailRefused, {}),
        (said(400, "send-0011", "The header cannot be customized", 'Headers["X"]'), EmailRefused, {}),
        (at_once(400, "mj-0002", "Malformed JSON"), EmailRefused, {}),
        (said(400, "mj-0006", "Characters limit exceeded", "Subject"), EmailRefused, {}),
        (at_once(403, "mj-0021", "no access to this resource"), SenderRefused, {}),
        (Reply(429, b"Rate limit exceeded", {"Content-Type": "text/html"}), RateLimited, {}),
        (at_once(500, "mj-0099", "Something went wrong on our side"), TemporaryError, {}),
        (Reply(500, b""), OutcomeUnknown, {}),
        (Reply(200, {"Messages": []}), OutcomeUnknown, {"evidence": {"status": 200}}),
        (Reply(200, b"yikes, this is no real answer"), OutcomeUnknown, {"evidence": {"status": 200}}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(MailjetDriver, reply, expected, options=OPTIONS, **attributes)


def test_the_regions_have_hosts_of_their_own() -> None:
    for region, host in (("eu", "https://api.mailjet.com"), ("us", "https://api.us.mailjet.com")):
        options = MailjetDriver.Options.model_validate(OPTIONS | {"region": region})
        assert MailjetDriver(options, sender=mail().sender).base == host
