"""Postmark: the request whole, and each documented answer."""

from __future__ import annotations

from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import Any

import pytest

from postier.drivers.postmark import PostmarkDriver
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

OPTIONS: dict[str, Any] = {"server_token": SECRET}
ACCEPTED = Reply(
    200,
    {
        "To": "someone@example.com",
        "SubmittedAt": "2016-03-12T15:27:50.4468803-05:00",
        "MessageID": "b4007d94-33f1-4e78-a783-97417d6c80e6",
        "ErrorCode": 0,
        "Message": "OK",
    },
)


def said(status: int, code: int, message: str, **headers: str) -> Reply:
    return Reply(status, {"ErrorCode": code, "Message": message}, headers)


BAD_TOKEN = said(401, 10, "The Server Token you provided in the X-Postmark-Server-Token request header was invalid.")
INACTIVE = said(
    422,
    406,
    "You tried to send to a recipient that has been marked as inactive.\nFound inactive addresses: a@example.com.\n"
    "Inactive recipients are ones that have generated a hard bounce or a spam complaint.",
)


class TestContract(ApiContract):
    driver = PostmarkDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = "/server"
    probed = Reply(200, {"ID": 1, "Name": "Production", "DeliveryType": "Live"})
    answers = {  # noqa: RUF012
        "refuses_login": BAD_TOKEN,
        "refuses_recipient": INACTIVE,
        "busy": Reply(503, b""),
        "throttles": Reply(429, b"Rate Limit Exceeded"),
    }
    wrong_options = (
        ({"server_token": "two words"}, "server_token"),
        ({"message_stream": "Out Bound"}, "message_stream"),
    )


def test_a_mail_is_one_request_with_every_field() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        told = receipt(made(PostmarkDriver, fake, **OPTIONS))

    assert (told.provider_id, told.status, told.text) == ("b4007d94-33f1-4e78-a783-97417d6c80e6", "queued", "OK")
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/email")
    assert request.headers == {
        "host": f"localhost:{fake.port}",
        "user-agent": "postier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "x-postmark-server-token": SECRET,
        "content-length": str(len(request.body)),
    }
    assert request.json() == {
        "From": "The office <office@example.org>",
        "To": "=?utf-8?q?Zo=C3=AB=2C_Example?= <someone@example.com>",
        "ReplyTo": "Help <help@example.org>",
        "Subject": "Été: your link",
        "TextBody": "Hello.\n",
        "HtmlBody": "<p>Hello.</p>",
        "Headers": [
            {"Name": "Message-ID", "Value": "<d-0001@example.org>"},
            {"Name": "X-PM-KeepID", "Value": "true"},
            {"Name": "Auto-Submitted", "Value": "auto-generated"},
            {"Name": "List-Unsubscribe", "Value": "<https://example.org/u/1>"},
        ],
        "MessageStream": "outbound",
        "TrackOpens": False,
        "TrackLinks": "None",
    }


@pytest.mark.parametrize("name", [
    "=?utf-8?q?Boss_=28CEO=29?=", "=?utf-8?b?DQpCY2M6IHFAei5leGFtcGxl?=", "é =?utf-8?q?=0ABcc?=",
    "=?utf-8?q?a?==?utf-8?q?b?=", 'Eve" <q@z.example>, "', "Eve, q@z.example", "all: q@z.example;",
    "\\", "\u202cx", "=?",
])  # fmt: skip
def test_a_name_stays_what_was_typed_and_one_mailbox(name: str) -> None:
    box = Mailbox("someone@example.com", name)
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(PostmarkDriver, fake, **OPTIONS), mail(to=(box,), sender=box, reply_to=box))

    sent = fake.requests[0].json()
    for field in ("From", "To", "ReplyTo"):
        ((shown, address),) = getaddresses([sent[field]])
        assert address == box.address
        assert str(make_header(decode_header(shown))) == name


def test_an_internationalised_address_is_refused_before_anything_leaves() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        email = mail(reply_to=Mailbox("zoë@example.com", "Zoë"), smtputf8=True)
        error = failure(made(PostmarkDriver, fake, **OPTIONS), email)
        assert fake.connections == 0

    assert isinstance(error, EmailRefused)


def test_a_packet_goes_to_bcc_and_tells_who_was_left_out() -> None:
    words = (
        "Message OK, but will not deliver to these inactive addresses: B@example.com. Inactive recipients are ones …"
    )
    partly = Reply(200, {"MessageID": "m-1", "ErrorCode": 0, "Message": words})
    with FakeApi(always(partly)) as fake:
        told = receipt(made(PostmarkDriver, fake, **OPTIONS), mail("a@example.com", "b@example.com"))

    sent = fake.requests[0].json()
    assert (sent["To"], sent["Bcc"]) == ("The office <office@example.org>", "a@example.com, b@example.com")
    assert [(refused.recipient, type(refused.error)) for refused in told.refused] == [
        ("b@example.com", RecipientRefused)
    ]
    assert "B@example.com" not in told.text


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (BAD_TOKEN, AuthenticationFailed, {}),
        (said(422, 10, "Bad or missing API token"), AuthenticationFailed, {}),
        (said(422, 100, "Maintenance"), TemporaryError, {}),
        (said(422, 300, "Invalid 'To' address: 'invalid@localhost'."), RecipientRefused, {"suppress": False}),
        (said(422, 300, "Error parsing 'Bcc': Illegal email domain '+'."), RecipientRefused, {}),
        (said(422, 300, "Invalid 'From' address: 'x'."), SenderRefused, {}),
        (said(422, 300, "Maximum of 50 recipients allowed"), RateLimited, {"too_many_recipients": True}),
        (said(422, 300, "Provide either email TextBody or HtmlBody or both."), EmailRefused, {}),
        (said(422, 400, "The 'From' address you supplied is not a Sender Signature."), SenderRefused, {}),
        (said(422, 401, "The Sender Signature has not been confirmed."), SenderRefused, {}),
        (said(422, 402, "Invalid JSON"), EmailRefused, {}),
        (said(422, 405, "Not allowed to send: out of credits"), QuotaExhausted, {"until": 3600.0}),
        (INACTIVE, RecipientRefused, {"suppress": True}),
        (said(422, 411, "Forbidden attachment type"), EmailRefused, {}),
        (said(422, 412, "While your account is pending approval, all recipients …"), SenderRefused, {}),
        (said(422, 413, "Account May Not Send"), SenderRefused, {}),
        (said(422, 1235, "The message stream 'x' was not found on this server."), SenderRefused, {}),
        (said(429, 429, "Rate Limit Exceeded", **{"Retry-After": "3"}), RateLimited, {"retry_after": 3.0}),
        (Reply(413, b"too large"), EmailRefused, {}),
        (said(500, 0, "Internal server error"), TemporaryError, {}),
        (Reply(500, b""), OutcomeUnknown, {}),
        (Reply(503, b""), TemporaryError, {}),
        (Reply(200, b"OK"), OutcomeUnknown, {"evidence": {"status": 200}}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(PostmarkDriver, reply, expected, options=OPTIONS, **attributes)
