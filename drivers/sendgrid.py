"""The `sendgrid` driver: Twilio SendGrid's Web API v3, POST /v3/mail/send.

API: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send; errors:
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors and
https://support.sendgrid.com/hc/en-us/articles/18322114821403 (4XX). Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "sendgrid"
    sender = { address = "no-reply@example.org", name = "Example" }
    [accounts.default.options]
    api_key = "env:SENDGRID_API_KEY"   # required; needs the right "Mail Send"
    region = "global"                  # global | eu (a regional subuser's key)
    timeout = 30                       # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

A packet leaves as one mail per recipient (personalizations, at most 1,000): each sees itself in To, the sender gets no
copy. Message-ID is sent as a header; it is none of the reserved ones. There is no idempotency key: an answer that never
comes is an unknown outcome. Open and click tracking are switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known, crowded
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
)
from postier.schemas.receipt import Receipt

_HOSTS = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}


class SendgridOptions(ApiOptions):
    """The API key, and where the account lives."""

    api_key: Key
    region: Literal["global", "eu"] = "global"


class SendgridDriver(ApiDriver[SendgridOptions]):
    """Sends by fields; 202 is the provider's promise to try."""

    Options = SendgridOptions
    errors = (
        Known(partial(QuotaExhausted, until=3600.0), words="maximum credits exceeded"),  # sent with status 401
        Known(AuthenticationFailed, 401),
        Known(RateLimited, 403, words="too many bad requests"),  # a temporary block
        Known(SenderRefused, 403, words="verified sender identity"),
        Known(AuthenticationFailed, 403, words="access forbidden"),  # the key lacks the right to send
        Known(SenderRefused, 400, words="the from"),
        Known(crowded, 400, words="total recipients"),
        Known(crowded, 400, words="personalizations per api request"),
        Known(RecipientRefused, 400, words="does not contain a valid address"),
        Known(EmailRefused, 413),
        Known(RateLimited, 429),
        Known(SenderRefused, 451),  # data residency
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        answer = self._post("/v3/mail/send", self._body(email), email)
        if answer.status == 202:
            return Receipt(provider_id=answer.headers.get("x-message-id"), status="queued", code=202)
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """GET /v3/scopes: what the key may do. Raises AuthenticationFailed when sending is not among it."""
        answer = self._get("/v3/scopes")
        scopes = answer.json().get("scopes")
        if answer.status != 200 or not isinstance(scopes, list):
            raise self._refused(answer)
        if "mail.send" not in scopes:
            raise AuthenticationFailed("the key lacks the scope mail.send", code=200, stage="http")
        return {"scopes": str(len(scopes))}

    def _own_url(self) -> str:
        return _HOSTS[self.options.region]

    def _login(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.options.api_key.get_secret_value()}"}

    def _body(self, email: Email) -> dict[str, Any]:
        names = {mailbox.address: mailbox for mailbox in email.to}
        people = [names.get(address, Mailbox(address)) for address in dict.fromkeys(email.recipients)]
        parts = (("text/plain", email.text), ("text/html", email.html))
        body: dict[str, Any] = {
            "personalizations": [{"to": [_person(one)]} for one in people],
            "from": _person(email.sender),
            "subject": email.subject,
            "content": [{"type": kind, "value": value} for kind, value in parts if value],
            "headers": {"Message-ID": email.message_id, **dict(email.headers)},
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
            },
        }
        if email.reply_to:
            body["reply_to"] = _person(email.reply_to)
        return body

    def _refused(self, answer: Answer) -> DeliveryError:
        errors = answer.json().get("errors")
        rows = [row for row in errors if isinstance(row, dict)] if isinstance(errors, list) else []
        return self._refusal(answer, "; ".join(str(row.get("message", "")) for row in rows[:3]))


def _person(mailbox: Mailbox) -> dict[str, str]:
    return {"email": mailbox.address, **({"name": mailbox.name} if mailbox.name else {})}
