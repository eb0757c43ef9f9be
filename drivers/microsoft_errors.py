"""What Microsoft's refusals mean: the token service's and Graph's.

Token service: the OAuth `error` decides, the AADSTS numbers only tell apart what it lumps together
(learn.microsoft.com/entra/identity-platform/reference-error-codes). Graph: learn.microsoft.com/graph/errors and the
names Exchange gives (learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from postier.drivers.https_wire import Answer
from postier.drivers.smtp_words import safe_words
from postier.drivers.tokens import login_refused, oauth_unavailable
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)

_NUMBER = re.compile(r"AADSTS(\d{4,9})")
_ERROR_NAME = re.compile(r"[a-z_]{1,40}")
_GRAPH_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{1,79}")

AWAY = frozenset({90006, 90024, 90033, 90090})
THROTTLED = frozenset({90055, 50196})
NEEDS_A_PERSON = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})

ADVICE: dict[int, str] = {
    7000215: "The client secret is wrong: copy the secret's value, not its id, from the Entra portal.",
    7000222: "The client secret has ended: make a new one in the Entra portal and put it into this account.",
    7000112: "The app is switched off in this directory: an administrator has to enable it.",
    7000218: "The app registration does not allow public client flows: allow them, or use a client secret.",
    700016: "The directory does not know this app: check client_id and tenant_id, and give admin consent there.",
    700027: "The certificate is not one of the app's: upload its public part to the app registration.",
    700024: "The assertion is outside its time: set this machine's clock right.",
    70011: "The scope is not valid in this cloud: check authority, mode and graph_url.",
    500011: "The resource is not known in this directory: check authority and graph_url.",
    90002: "There is no such directory in this cloud: check tenant_id and authority.",
    900023: "tenant_id is neither the directory's id nor one of its domains.",
    53003: "A conditional access policy blocks the login: ask the administrator to let this app through.",
    50076: "The login wants a second factor: a person has to log in again.",
    50079: "The login wants a second factor to be set up: a person has to log in again.",
    50173: "The password was changed since the login: a person has to log in again.",
    50057: "The person's account is disabled: log in with another.",
    65001: "Nobody has consented to what the app asks for: give consent, or log in again.",
    700082: "The login was not used for too long: a person has to log in again.",
    70008: "The login has run out: a person has to log in again.",
    70043: "The directory wants logins more often: a person has to log in again.",
}
_BY_ERROR = {
    "invalid_client": "The app's proof was refused: check client_id and the secret or certificate.",
    "unauthorized_client": "The app may not log in this way: check tenant_id, client_id and the app registration.",
    "invalid_scope": "The scope was refused: check authority, mode and graph_url.",
    "invalid_tenant": "There is no such directory: check tenant_id and authority.",
    "invalid_resource": "The resource is not known in this directory: check authority and graph_url.",
    "authorization_declined": "The login was declined: log in again and agree to what the app asks for.",
    "expired_token": "The code has run out: begin the login again.",
    "access_denied": "The login was declined: log in again and agree, or ask the administrator to allow the app.",
}


def token_refusal(payload: Mapping[str, Any], status: int | None = None, *, delegated: bool = False) -> DeliveryError:
    """The error for a refusal of the token service. `delegated` says that a person's login is what was refused."""
    name = str(payload.get("error") or "")
    name = name if _ERROR_NAME.fullmatch(name) else "refused"
    description = str(payload.get("error_description") or "")
    numbers = _numbers(payload, description)
    shown = " ".join([*(f"AADSTS{number}" for number in numbers[:1]), name])
    if THROTTLED.intersection(numbers):
        return oauth_unavailable(f"{shown}: too many requests", code=status, limited=True)
    if AWAY.intersection(numbers) or name in ("temporarily_unavailable", "server_error", "service_unavailable"):
        return oauth_unavailable(f"{shown}: the token service asks to come back", code=status)
    advice = next((ADVICE[number] for number in numbers if number in ADVICE), None)
    needs_login = delegated and name in NEEDS_A_PERSON
    if advice is None:
        advice = "A person has to log in again." if needs_login else _BY_ERROR.get(name)
    if advice is None:
        words = safe_words(_NUMBER.sub("", description.partition("Trace ID")[0]).strip(": \r\n"))
        advice = f"{words or 'the token service gave no reason'}"
    return login_refused(f"{shown}: {advice}", code=status, needs_login=needs_login)


def _numbers(payload: Mapping[str, Any], description: str) -> list[int]:
    codes = payload.get("error_codes")
    found = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    return found or [int(number) for number in _NUMBER.findall(description[:2000])]


GRAPH: dict[str, type[DeliveryError]] = {
    "ErrorAccessDenied": SenderRefused,
    "ErrorSendAsDenied": SenderRefused,
    "Authorization_RequestDenied": SenderRefused,
    "accessDenied": SenderRefused,
    "ErrorInvalidUser": SenderRefused,
    "ErrorNonExistentMailbox": SenderRefused,
    "MailboxNotEnabledForRESTAPI": SenderRefused,
    "MailboxNotHostedInExchangeOnline": SenderRefused,
    "ErrorAccountDisabled": SenderRefused,
    "ErrorMessageSubmissionBlocked": SenderRefused,
    "ErrorQuotaExceeded": SenderRefused,  # of the sending mailbox: its Sent Items are full
    "ErrorMimeContentInvalidBase64String": EmailRefused,
    "ErrorMimeContentInvalid": EmailRefused,
    "ErrorMimeContentConversionFailed": EmailRefused,
    "ErrorMessageSizeExceeded": EmailRefused,
    "ErrorInvalidRecipients": RecipientRefused,
    "ErrorExceededMessageLimit": QuotaExhausted,
    "ErrorExceededConnectionCount": RateLimited,
    "ApplicationThrottled": RateLimited,
    "MailboxConcurrency": RateLimited,
    "TooManyRequests": RateLimited,
    "ErrorServerBusy": RateLimited,
    "ErrorMailboxStoreUnavailable": TemporaryError,
    "ErrorMailboxMoveInProgress": TemporaryError,
    "ErrorInternalServerTransientError": TemporaryError,
    "ErrorTimeoutExpired": TemporaryError,
}
_BY_STATUS: dict[int, type[DeliveryError]] = {
    401: AuthenticationFailed,
    403: SenderRefused,
    404: SenderRefused,
    405: SenderRefused,
    408: TemporaryError,
    409: TemporaryError,
    410: SenderRefused,
    413: EmailRefused,
    429: RateLimited,
}
_CLASSES: dict[type[DeliveryError], str] = {
    AuthenticationFailed: "auth",
    EmailRefused: "permanent_content",
    QuotaExhausted: "throttle",
    RateLimited: "throttle",
    RecipientRefused: "permanent_recipient",
    SenderRefused: "config",
    TemporaryError: "retry",
}
_PROBE = 3_600.0  # seconds: the day's quota slides, so it is worth a look every hour


def graph_refusal(answer: Answer, secrets: Sequence[str] = ()) -> DeliveryError:
    """The error for any answer of sendMail but 202."""
    name, words = _graph_words(answer, secrets)
    kind = _graph_kind(answer.status, name, words)
    text = ": ".join(part for part in (name, words) if part) or f"Graph answered {answer.status}"
    if 200 <= answer.status < 300:
        text = f"Graph answered {answer.status} instead of 202: the mail was not sent"
    details: dict[str, Any] = {"code": answer.status, "stage": "http", "reply_class": _CLASSES[kind]}
    if kind in (RateLimited, TemporaryError):
        details["retry_after"] = answer.retry_after
    if kind is QuotaExhausted:
        details["until"] = answer.retry_after or _PROBE
    return kind(text, **details)


def _graph_kind(status: int, name: str, words: str) -> type[DeliveryError]:
    # Too long mails were answered with 200 and lost: issue 13979 of github.com/microsoftgraph/microsoft-graph-docs
    if 200 <= status < 300:
        return EmailRefused
    if 300 <= status < 400:
        return SenderRefused
    if status == 401:
        return AuthenticationFailed
    if "SubmissionQuotaExceeded" in f"{name} {words}":
        return QuotaExhausted
    known = GRAPH.get(name)
    if known is not None and (status != 429 or known is QuotaExhausted):
        return known
    return _BY_STATUS.get(status) or (TemporaryError if status >= 500 else EmailRefused)


def _graph_words(answer: Answer, secrets: Sequence[str]) -> tuple[str, str]:
    try:
        payload = json.loads(answer.body)
        error = payload["error"]
        name, message = str(error["code"]), str(error.get("message") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    return (name if _GRAPH_NAME.fullmatch(name) else "", safe_words(message, secrets))
