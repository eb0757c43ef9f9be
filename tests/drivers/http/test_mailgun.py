"""Mailgun: the form whole, and each documented answer."""

from __future__ import annotations

import base64
import time
from email.message import Message
from email.parser import BytesParser
from email.utils import formatdate
from typing import Any

import pytest

from postier.drivers.mailgun import MailgunDriver
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
from tests.drivers.http.fake import SECRET, FakeApi, Reply, Request, always, made, mail, receipt

OPTIONS: dict[str, Any] = {"api_key": SECRET, "domain": "mg.example.org"}
ACCEPTED = Reply(200, {"id": "<20160306015544.116301.25145@mg.example.org>", "message": "Queued. Thank you."})


def said(status: int, message: str, **headers: str) -> Reply:
    return Reply(status, {"message": message}, headers)


FORBIDDEN = Reply(401, b"Forbidden")
BAD_ADDRESS = said(400, "'to' parameter is not a valid address. please check documentation")


class TestContract(ApiContract):
    driver = MailgunDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = "/v3/mg.example.org/messages"
    probed = said(400, "from parameter is missing")
    answers = {  # noqa: RUF012
        "refuses_login": FORBIDDEN,
        "refuses_recipient": BAD_ADDRESS,
        "busy": said(500, "Internal Server Error"),
        "throttles": said(429, "Too many requests", **{"Retry-After": "5"}),
    }
    wrong_options = (
        ({"api_key": ""}, "api_key"),
        ({"domain": "../v3"}, "domain"),
        ({"region": "fr"}, "region"),
    )


def fields(request: Request) -> list[tuple[str, str | None, bytes]]:
    """The form's fields as (name, file name, octets)."""
    parsed: Message = BytesParser().parsebytes(
        b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.body
    )
    found = []
    for part in request.body.split(b"--" + str(parsed.get_boundary()).encode())[1:-1]:
        head, _, octets = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        names = BytesParser().parsebytes(head + b"\r\n\r\n")
        name = names.get_param("name", header="content-disposition")
        found.append((str(name), names.get_filename(), octets.removesuffix(b"\r\n")))
    return found


def test_a_mail_goes_as_it_is_written() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        told = receipt(made(MailgunDriver, fake, **OPTIONS))

    assert told.provider_id == "<20160306015544.116301.25145@mg.example.org>"
    assert (told.status, told.text) == ("queued", "Queued. Thank you.")
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v3/mg.example.org/messages.mime")
    assert request.headers.pop("content-type").startswith("multipart/form-data; boundary=")  # type: ignore[attr-defined]
    assert request.headers == {
        "host": f"localhost:{fake.port}",
        "user-agent": "postier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "authorization": "Basic " + base64.b64encode(f"api:{SECRET}".encode()).decode(),
        "content-length": str(len(request.body)),
    }


def test_a_packet_goes_to_the_envelope_alone() -> None:
    email = mail("a@example.com", "b@example.com")
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(MailgunDriver, fake, **OPTIONS), email)

    assert fields(fake.requests[0]) == [
        ("to", None, b"a@example.com"),
        ("to", None, b"b@example.com"),
        ("o:tracking", None, b"no"),
        ("message", "message.mime", email.mime),
    ]


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (FORBIDDEN, AuthenticationFailed, {}),
        (said(401, "Invalid private key"), AuthenticationFailed, {}),
        (BAD_ADDRESS, RecipientRefused, {"suppress": False}),
        (said(400, "'from' parameter is not a valid address. please check documentation"), SenderRefused, {}),
        (said(400, "Sandbox subdomains are for test purposes only."), SenderRefused, {}),
        (said(403, "Domain mg.example.org is not allowed to send: the domain is unverified"), SenderRefused, {}),
        (said(403, "Please activate your Mailgun account."), SenderRefused, {}),
        (
            said(420, "Domain mg.example.org is not allowed to send: recipient limit exceeded"),
            QuotaExhausted,
            {"until": 3600.0},
        ),
        (said(404, "Domain not found: mg.example.org"), SenderRefused, {}),
        (Reply(200, b"Mailgun Magnificent API"), SenderRefused, {}),
        (said(400, "message parameter is missing"), EmailRefused, {}),
        (said(413, "Request Entity Too Large"), EmailRefused, {}),
        (said(429, "Too many requests", **{"Retry-After": "5"}), RateLimited, {"retry_after": 5.0}),
        (said(500, "Internal Server Error"), TemporaryError, {}),
        (Reply(500, b"<html>", {"Content-Type": "text/html"}), OutcomeUnknown, {}),
        (Reply(502, b"Bad Gateway"), OutcomeUnknown, {}),
        (Reply(503, b""), TemporaryError, {}),
        (Reply(200, {"surprise": 1}), OutcomeUnknown, {"evidence": {"status": 200}}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(MailgunDriver, reply, expected, options=OPTIONS, **attributes)


def test_the_account_waits_until_the_hour_the_provider_names(monkeypatch: pytest.MonkeyPatch) -> None:
    now = float(int(time.time()))
    monkeypatch.setattr(time, "time", lambda: now)
    hour = formatdate(now + 1_200, usegmt=True).replace("GMT", "UTC")
    reply = said(420, f"Domain mg.example.org is not allowed to send: recipient limit exceeded, try again after {hour}")

    refused_with(MailgunDriver, reply, QuotaExhausted, options=OPTIONS, until=1_200.0)


def test_the_regions_have_hosts_of_their_own() -> None:
    for region, host in (("us", "https://api.mailgun.net"), ("eu", "https://api.eu.mailgun.net")):
        options = MailgunDriver.Options.model_validate(OPTIONS | {"region": region})
        assert MailgunDriver(options, sender=mail().sender).base == host
