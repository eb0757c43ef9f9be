"""Amazon SES: Signature Version 4 by AWS' published vectors, the request whole, each documented answer."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postier.drivers.aws_sign import Scope, signature_header
from postier.drivers.ses import SesDriver
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    QuotaExhausted,
    RateLimited,
    SenderRefused,
    TemporaryError,
)
from tests.drivers.http.contract import ApiContract, refused_with
from tests.drivers.http.fake import SECRET, FakeApi, Reply, Request, always, failure, made, mail, receipt

OPTIONS: dict[str, Any] = {"region": "eu-west-1", "access_key": "AKIDEXAMPLE", "secret_key": SECRET}
ACCEPTED = Reply(200, {"MessageId": "0102018b-aaaa-bbbb-cccc-000000"})
ACCOUNT = Reply(
    200,
    {
        "SendingEnabled": True,
        "ProductionAccessEnabled": False,
        "SendQuota": {"Max24HourSend": 200.0, "MaxSendRate": 1.0, "SentLast24Hours": 7.0},
    },
)

# The published suite: https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html
SUITE = Scope("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service")
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = {"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z"}
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwth"
    "Ax7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAki"
    "Y9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signed", "signature"),
    [
        (
            "GET",
            "/",
            "",
            {},
            b"",
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/",
            "Param2=value2&Param1=value1",
            {},
            b"",
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET",
            "/",
            "%E1%88%B4=bar",
            {},
            b"",
            "host;x-amz-date",
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "GET",
            "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            "",
            {},
            b"",
            "host;x-amz-date",
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "GET",
            "/ሴ",
            "",
            {},
            b"",
            "host;x-amz-date",
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            "GET",
            "/",
            "",
            {"My-Header1": " value1", "My-Header2": ' "a   b   c"'},
            b"",
            "host;my-header1;my-header2;x-amz-date",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "POST",
            "/",
            "",
            {},
            b"",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "POST",
            "/",
            "",
            FORM,
            b"Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            "POST",
            "/",
            "",
            {"X-Amz-Security-Token": TOKEN},
            b"",
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
    ],
)
def test_requests_are_signed_as_in_the_published_suite(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes, signed: str, signature: str
) -> None:
    assert signature_header(method, path, query, HOST | headers, body, scope=SUITE, at=AT) == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={signed}, Signature={signature}"
    )


def is_well_signed(request: Request) -> bool:
    """What SES does with a request: sign it again, from what arrived."""
    at = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    path, _, query = request.path.partition("?")
    mine = signature_header(
        request.method,
        path,
        query,
        {name: request.headers[name] for name in names},
        request.body,
        scope=Scope("AKIDEXAMPLE", SECRET, "eu-west-1", "ses"),
        at=at,
    )
    fresh = abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    return fresh and "host" in names and mine == request.headers["authorization"]


def said(status: int, name: str, message: str, **headers: str) -> Reply:
    kind = f"{name}:http://internal.amazon.com/coral/com.amazonaws.services.simpleemail/"
    return Reply(status, {"message": message}, {"x-amzn-ErrorType": kind, **headers})


UNSIGNED = said(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
VIRUS = said(400, "MessageRejected", "Transaction failed: Virus found")


class TestContract(ApiContract):
    driver = SesDriver
    options = OPTIONS
    accepted = ACCEPTED
    probe_path = "/v2/email/account"
    probed = ACCOUNT
    answers = {  # noqa: RUF012
        "refuses_login": UNSIGNED,
        "refuses_recipient": VIRUS,  # SES takes every address, and tells by event
        "busy": said(500, "InternalFailure", "The request processing has failed because of an unknown error."),
        "throttles": said(429, "TooManyRequestsException", "Maximum sending rate exceeded."),
    }
    wrong_options = (
        ({"region": "evil.example/"}, "region"),
        ({"secret_key": ""}, "secret_key"),
        ({"configuration_set": "a b"}, "configuration_set"),
    )


def test_a_mail_goes_as_it_is_written_and_well_signed() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        told = receipt(made(SesDriver, fake, **OPTIONS, configuration_set="default"))

    assert (told.provider_id, told.status) == ("0102018b-aaaa-bbbb-cccc-000000", "queued")
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v2/email/outbound-emails")
    assert is_well_signed(request)
    assert request.headers.keys() == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "x-amz-date",
        "authorization",
    }
    assert request.headers["host"] == f"localhost:{fake.port}"
    assert SECRET not in str(request.headers)
    assert request.json() == {
        "Content": {"Raw": {"Data": base64.b64encode(mail().mime).decode()}},
        "Destination": {"ToAddresses": ["someone@example.com"]},
        "ConfigurationSetName": "default",
    }


def test_a_packet_goes_to_the_envelope_alone() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(SesDriver, fake, **OPTIONS), mail("a@example.com", "b@example.com"))

    assert fake.requests[0].json()["Destination"] == {"ToAddresses": ["a@example.com", "b@example.com"]}


def test_temporary_credentials_are_signed_too() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(made(SesDriver, fake, **OPTIONS, session_token="a-session-token"))

    assert fake.requests[0].headers["x-amz-security-token"] == "a-session-token"
    assert is_well_signed(fake.requests[0])


@pytest.mark.parametrize(
    ("reply", "expected", "attributes"),
    [
        (UNSIGNED, AuthenticationFailed, {}),
        (said(403, "InvalidSignatureException", "Signature expired: 20150830T123600Z"), AuthenticationFailed, {}),
        (
            said(403, "ExpiredTokenException", "The security token included in the request is expired"),
            AuthenticationFailed,
            {},
        ),
        (said(403, "AccessDeniedException", "User is not authorized to perform ses:SendEmail"), SenderRefused, {}),
        (
            said(400, "MessageRejected", "Email address is not verified. The following identities failed the check"),
            SenderRefused,
            {},
        ),
        (VIRUS, EmailRefused, {}),
        (said(400, "MailFromDomainNotVerifiedException", "Domain is not verified"), SenderRefused, {}),
        (said(400, "SendingPausedException", "Sending is paused"), SenderRefused, {}),
        (said(400, "AccountSuspendedException", "Suspended"), SenderRefused, {}),
        (said(404, "NotFoundException", "Configuration set <default> does not exist."), SenderRefused, {}),
        (said(400, "BadRequestException", "Missing final '@domain'"), EmailRefused, {}),
        (said(400, "LimitExceededException", "Limit exceeded"), QuotaExhausted, {"until": 3600.0}),
        (said(429, "TooManyRequestsException", "Daily message quota exceeded."), QuotaExhausted, {"until": 3600.0}),
        (said(400, "ThrottlingException", "Daily message quota exceeded"), QuotaExhausted, {}),
        (said(429, "TooManyRequestsException", "Maximum sending rate exceeded."), RateLimited, {}),
        (said(400, "ThrottlingException", "Rate exceeded"), RateLimited, {}),
        (said(500, "InternalFailure", "unknown error"), TemporaryError, {}),
        (said(503, "ServiceUnavailable", "temporary failure of the server"), TemporaryError, {}),
        (Reply(500, b"<html>oops</html>"), OutcomeUnknown, {}),
        (Reply(413, b""), EmailRefused, {}),
        (Reply(200, {"surprise": True}), OutcomeUnknown, {"evidence": {"status": 200}}),
    ],
)
def test_each_documented_answer_becomes_the_error_it_means(
    reply: Reply, expected: type[DeliveryError], attributes: dict[str, Any]
) -> None:
    refused_with(SesDriver, reply, expected, options=OPTIONS, **attributes)


def test_an_error_named_in_the_body_alone_is_understood() -> None:
    reply = Reply(400, {"__type": "com.amazonaws.sesv2#SendingPausedException", "message": "paused"})

    refused_with(SesDriver, reply, SenderRefused, options=OPTIONS)


def test_the_check_shows_the_quota_and_passes_a_user_who_may_only_send() -> None:
    denied = said(403, "AccessDeniedException", "User is not authorized to perform ses:GetAccount")
    for reply, shown in (
        (ACCOUNT, {"sandbox": "yes", "Max24HourSend": "200.0"}),
        (denied, {"account": "may not be read by this user"}),
    ):
        with FakeApi(always(reply)) as fake:
            last = list(made(SesDriver, fake, **OPTIONS).check())[-1]
        assert (last.name, last.ok) == ("login", True)
        assert last.details.items() >= shown.items()
        assert is_well_signed(fake.requests[0])


def test_the_check_says_when_sending_is_paused() -> None:
    with FakeApi(always(Reply(200, {"SendingEnabled": False}))) as fake:
        last = list(made(SesDriver, fake, **OPTIONS).check())[-1]

    assert not last.ok
    assert "paused" in last.words


def test_the_region_names_the_host() -> None:
    for region, host in (
        ("eu-west-1", "https://email.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://email.cn-north-1.amazonaws.com.cn"),
    ):
        options = SesDriver.Options.model_validate(OPTIONS | {"region": region})
        assert SesDriver(options, sender=mail().sender).base == host


def test_a_lost_answer_is_an_unknown_outcome_with_evidence() -> None:
    with FakeApi(lambda request: lambda handler, _: handler.leave()) as fake:
        error = failure(made(SesDriver, fake, **OPTIONS))

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence["octets"] > len(fake.requests[0].body)
