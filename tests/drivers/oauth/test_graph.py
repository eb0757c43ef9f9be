"""Mail through Graph: what goes over the wire, and what each answer means."""

from __future__ import annotations

import base64
from dataclasses import replace
from email import message_from_bytes
from email.policy import SMTP
from typing import Any

import pytest

from postier.drivers.graph import LARGEST_REQUEST, addressed
from postier.drivers.testing import sample_email
from postier.schemas.email import Email
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
    Unreachable,
)
from tests.drivers.conftest import Certificates
from tests.drivers.oauth.services import Graph, Microsoft, graph_error
from tests.drivers.oauth.web import Reply, cut, half, silence


def packet(*recipients: str) -> Email:
    """A mail to several who do not see each other: To says the sender."""
    mime = sample_email().mime.replace(b"To: someone@example.com", b"To: The office <office@contoso.example>")
    return replace(sample_email(), recipients=recipients, mime=mime)


def failure(microsoft: Microsoft, email: Email | None = None, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        microsoft.driver(**options).send(email or sample_email())
    return caught.value


def test_a_mail_is_posted_as_base64_mime_with_the_token(microsoft: Microsoft) -> None:
    email = sample_email()

    receipt = microsoft.driver().send(email)

    (request,) = microsoft.graph.requests
    assert request.method == "POST"
    assert request.path == "/v1.0/users/office%40contoso.example/sendMail"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["authorization"] == "Bearer canary-token-1"
    assert base64.b64decode(request.body, validate=True) == email.mime
    assert (receipt.status, receipt.code, receipt.provider_id) == ("queued", 202, "request-1")


def test_the_token_is_asked_for_as_the_app_and_for_graph_alone(microsoft: Microsoft) -> None:
    microsoft.driver().send(sample_email())

    (form,) = microsoft.entra.forms
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == f"{microsoft.graph.web.url}/.default"
    assert form["client_secret"] == "canary-client-secret"


@pytest.mark.parametrize(
    ("mailbox", "path"),
    [
        ("a/../b?c=d#e@contoso.example", "a%2F..%2Fb%3Fc%3Dd%23e%40contoso.example"),
        ("o'neil+x%2F@contoso.example", "o%27neil%2Bx%252F%40contoso.example"),
        ("büro@contoso.example", "b%C3%BCro%40contoso.example"),
    ],
)
def test_the_mailbox_is_escaped_into_the_url(microsoft: Microsoft, mailbox: str, path: str) -> None:
    microsoft.driver(mailbox=mailbox).send(sample_email())

    assert microsoft.graph.requests[0].path == f"/v1.0/users/{path}/sendMail"


def test_hidden_recipients_travel_as_bcc_and_nobody_else_is_written_to(microsoft: Microsoft) -> None:
    recipients = tuple(f"reader{number}@example.com" for number in range(40))

    microsoft.driver().send(packet(*recipients))

    message = message_from_bytes(microsoft.graph.mails[0], policy=SMTP)
    assert [address.addr_spec for address in message["Bcc"].addresses] == list(recipients)
    assert not message["To"].addresses
    assert b"office@contoso.example" not in microsoft.graph.mails[0]
    assert max(map(len, microsoft.graph.mails[0].split(b"\r\n"))) <= 998


def test_a_visible_recipient_is_not_named_twice() -> None:
    email = replace(sample_email(), recipients=("Someone@example.com", "other@example.com"))

    message = message_from_bytes(addressed(email), policy=SMTP)

    assert str(message["To"]) == "someone@example.com"
    assert str(message["Bcc"]) == "other@example.com"


def test_a_bcc_that_stood_in_the_mail_is_not_passed_on() -> None:
    mime = sample_email().mime.replace(b"Subject:", b"Bcc: stranger@example.com,\r\n another@example.com\r\nSubject:")

    assert b"stranger" not in addressed(replace(sample_email(), mime=mime))
    assert b"another" not in addressed(replace(sample_email(), mime=mime))


def test_a_mail_that_graph_cannot_take_is_refused_before_any_call(microsoft: Microsoft) -> None:
    body = b"x" * 76 + b"\r\n"
    email = replace(sample_email(), mime=sample_email().mime + body * (LARGEST_REQUEST * 3 // 4 // len(body) + 1))

    error = failure(microsoft, email)

    assert isinstance(error, EmailRefused)
    assert not microsoft.graph.requests
    assert not microsoft.entra.forms


def test_the_longest_mail_that_fits_is_sent(microsoft: Microsoft) -> None:
    email = sample_email()
    email = replace(email, mime=email.mime.ljust(LARGEST_REQUEST * 3 // 4, b"x"))

    microsoft.driver().send(email)

    assert len(microsoft.graph.requests[0].body) == LARGEST_REQUEST


# PROVIDERS 1.6 and Exchange's own names
REPLIES = [
    (403, "ErrorAccessDenied", "Access is denied. Check credentials.", SenderRefused),
    (403, "ErrorSendAsDenied", "The user account does not have the right to send as this.", SenderRefused),
    (403, "Authorization_RequestDenied", "Insufficient privileges", SenderRefused),
    (403, "SomethingNew", "no", SenderRefused),
    (404, "ErrorInvalidUser", "The requested user is invalid.", SenderRefused),
    (404, "MailboxNotEnabledForRESTAPI", "no REST for this mailbox", SenderRefused),
    (404, "ResourceNotFound", "not found", SenderRefused),
    (400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.", EmailRefused),
    (400, "ErrorMimeContentInvalid", "bad", EmailRefused),
    (400, "ErrorMessageSizeExceeded", "too long", EmailRefused),
    (400, "ErrorInvalidRecipients", "At least one recipient is not valid.", RecipientRefused),
    (400, "ErrorSendAsDenied", "no", SenderRefused),
    (400, "SomethingNew", "no", EmailRefused),
    (413, "RequestEntityTooLarge", "too long", EmailRefused),
    (429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", RateLimited),
    (429, "TooManyRequests", "slow down", RateLimited),
    (429, "ErrorExceededMessageLimit", "the day is over", QuotaExhausted),
    (500, "ErrorServerBusy", "busy", RateLimited),
    (500, "ErrorQuotaExceeded", "The mailbox is full.", SenderRefused),
    (500, "ErrorInternalServerError", "x: SubmissionQuotaExceededException; quota", QuotaExhausted),
    (500, "ErrorInternalServerTransientError", "again", TemporaryError),
    (500, "generalException", "oops", TemporaryError),
    (502, "UnknownError", "", TemporaryError),
    (503, "serviceNotAvailable", "away", TemporaryError),
    (504, "UnknownError", "late", TemporaryError),
]


@pytest.mark.parametrize(("status", "code", "message", "kind"), REPLIES)
def test_every_refusal_of_graph_has_its_error(
    microsoft: Microsoft, status: int, code: str, message: str, kind: type[DeliveryError]
) -> None:
    microsoft.graph.always = graph_error(status, code, message)

    error = failure(microsoft)

    assert type(error) is kind
    assert (error.code, error.stage) == (status, "http")
    assert code in error.text
    assert error.reply_class
    assert len(microsoft.graph.requests) == 1


@pytest.mark.parametrize(("status", "code"), [(429, "ApplicationThrottled"), (503, "away"), (504, "late")])
def test_graphs_wish_to_wait_is_passed_on(microsoft: Microsoft, status: int, code: str) -> None:
    microsoft.graph.always = graph_error(status, code, "wait", Retry_After="17")

    error = failure(microsoft)

    assert isinstance(error, TemporaryError)
    assert error.retry_after == 17


@pytest.mark.parametrize("status", [200, 201, 204, 206])
def test_only_202_means_sent(microsoft: Microsoft, status: int) -> None:
    microsoft.graph.always = Reply(status)

    error = failure(microsoft)

    assert isinstance(error, EmailRefused)
    assert "not sent" in error.text


def test_a_redirect_of_graph_is_not_followed(microsoft: Microsoft) -> None:
    microsoft.graph.always = Reply(307, headers={"Location": f"{microsoft.graph.web.url}/elsewhere"})

    assert isinstance(failure(microsoft), SenderRefused)
    assert len(microsoft.graph.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "text"}', b'{"error": {"code": null}}', b"\xff"])
def test_a_refusal_without_words_is_judged_by_its_status(microsoft: Microsoft, body: bytes) -> None:
    microsoft.graph.always = Reply(503, body)

    assert type(failure(microsoft)) is TemporaryError


def test_a_refused_token_is_replaced_once(microsoft: Microsoft) -> None:
    microsoft.graph.refused.add("canary-token-1")
    told: list[int] = []

    receipt = microsoft.driver().send(replace(sample_email(), handing_over=lambda: told.append(1)))

    assert receipt.code == 202
    assert microsoft.graph.tokens == ["canary-token-1", "canary-token-2"]
    assert told == [1]


def test_a_second_refusal_of_the_token_stops_the_account(microsoft: Microsoft) -> None:
    microsoft.graph.refused |= {"canary-token-1", "canary-token-2"}

    error = failure(microsoft)

    assert isinstance(error, AuthenticationFailed)
    assert (error.code, error.needs_login) == (401, False)
    assert len(microsoft.graph.requests) == 2
    assert len(microsoft.entra.forms) == 2


@pytest.mark.parametrize("reply", [cut, silence], ids=["cut", "silence"])
def test_a_lost_answer_after_the_mail_is_an_unknown_outcome(microsoft: Microsoft, reply: object) -> None:
    assert callable(reply)
    microsoft.graph.always = reply()

    error = failure(microsoft, final_timeout=0.3)

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence["octets"] == len(microsoft.graph.requests[0].body)


def test_an_answer_is_believed_though_its_body_is_cut(microsoft: Microsoft) -> None:
    def accepted(*_: object) -> None:
        handler = _[1]
        handler.wfile.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nx")  # type: ignore[attr-defined]

    microsoft.graph.always = Reply(raw=accepted)

    assert microsoft.driver().send(sample_email()).code == 202


def test_a_cut_refusal_is_no_acceptance(microsoft: Microsoft) -> None:
    microsoft.graph.always = half({"error": {"code": "x"}})

    assert isinstance(failure(microsoft), EmailRefused)


def test_nothing_is_handed_over_to_a_closed_port(microsoft: Microsoft) -> None:
    microsoft.graph.web.accepting = False
    told: list[int] = []

    error = failure(microsoft, replace(sample_email(), handing_over=lambda: told.append(1)))

    assert isinstance(error, Unreachable)
    assert told == []


def test_a_stranger_in_graphs_place_gets_no_token(microsoft: Microsoft, certificates: Certificates) -> None:
    with Graph(certificates.self_signed).web as stranger:
        error = failure(microsoft, graph_url=stranger.url)

    assert isinstance(error, AccountError)
    assert error.text.startswith("certificate: ")
    assert error.cause.startswith("certificate_")
    assert stranger.connections == 1


def test_hosts_that_are_not_microsofts_stay_behind_the_egress_guard(microsoft: Microsoft) -> None:
    error = failure(microsoft, allow_hosts=())

    assert isinstance(error, SenderRefused)
    assert "egress" in error.text
    assert microsoft.entra.web.connections == 0
