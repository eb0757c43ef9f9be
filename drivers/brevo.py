"""The `brevo` driver: Brevo's API v3, POST /v3/smtp/email.

API: https://developers.brevo.com/reference/sendtransacemail; idempotency:
https://developers.brevo.com/docs/heterogenous-versions-batch-emails; limits:
https://developers.brevo.com/docs/limit-headers. Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "brevo"
    sender = { address = "no-reply@example.org", name = "Example" }
    limits = { max_recipients = 98 }     # Brevo takes 99 with the sender, who stands in To of a packet
    [accounts.default.options]
    api_key = "env:BREVO_API_KEY"        # required; the API key, not the SMTP key
    timeout = 30                         # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

Every mail carries an idempotency key made from the delivery's id, which Brevo honours for 30 minutes: a lost answer is
tried again, and when Brevo then says "duplicate", an earlier attempt had reached it: the outcome is unknown, because
nothing says whether a refused attempt uses the key up. Brevo makes its own Message-ID and documents no way to keep
ours. A packet goes to Bcc, with the sender in To, who gets a copy.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known, hidden
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
)
from postier.schemas.receipt import Receipt

_repeated = partial(OutcomeUnknown, evidence={"reply": "the idempotency key was used before"})
_KEYS = uuid.UUID("6f3c1b5e-7a34-5d0e-9d53-5b0a4c1f2e77")  # the name space of our keys: any fixed one will do


class BrevoOptions(ApiOptions):
    """The API key."""

    api_key: Key


class BrevoDriver(ApiDriver[BrevoOptions]):
    """Sends by fields; 201 is the provider's promise to try."""

    Options = BrevoOptions
    url = "https://api.brevo.com"
    takes_once = True
    errors = (
        Known(_repeated, code="duplicate_parameter"),
        Known(_repeated, code="duplicate_request"),
        Known(AuthenticationFailed, 401),
        Known(AuthenticationFailed, code="unauthorized"),
        Known(partial(QuotaExhausted, until=3600.0), code="not_enough_credits"),
        Known(partial(QuotaExhausted, until=3600.0), 402),
        Known(SenderRefused, code="permission_denied"),
        Known(SenderRefused, code="account_under_validation"),
        Known(SenderRefused, 400, words="sender"),
        Known(RecipientRefused, code="invalid_parameter", words="not valid in to"),
        Known(RecipientRefused, code="invalid_parameter", words="not valid in bcc"),
        Known(EmailRefused, 400),
        Known(RateLimited, 429),
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt; repeating it within 30 minutes is safe."""
        answer = self._post("/v3/smtp/email", self._body(email), email)
        message_id = answer.json().get("messageId")
        if answer.status in (201, 202) and isinstance(message_id, str):
            return Receipt(provider_id=message_id, status="queued", code=answer.status)
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """GET /v3/account: whose key it is."""
        answer = self._get("/v3/account")
        reply = answer.json()
        if answer.status != 200 or "email" not in reply:
            raise self._refused(answer)
        plans = [plan for plan in reply.get("plan") or () if isinstance(plan, dict)]
        return {"plan": ", ".join(f"{plan.get('type')}: {plan.get('credits')} credits" for plan in plans)[:200]}

    def _login(self) -> Mapping[str, str]:
        return {"api-key": self.options.api_key.get_secret_value()}

    def _body(self, email: Email) -> dict[str, Any]:
        body: dict[str, Any] = {
            "sender": _person(email.sender),
            "to": [_person(one) for one in email.to],
            "subject": email.subject,
            "headers": {"idempotencyKey": str(uuid.uuid5(_KEYS, email.delivery_id)), **dict(email.headers)},
        }
        if email.text:
            body["textContent"] = email.text
        if email.html:
            body["htmlContent"] = email.html
        if others := hidden(email):
            body["bcc"] = [{"email": address} for address in others]
        if email.reply_to:
            body["replyTo"] = _person(email.reply_to)
        return body

    def _refused(self, answer: Answer) -> DeliveryError:
        reply = answer.json()
        return self._refusal(answer, str(reply.get("message", "")), reply.get("code"))


def _person(mailbox: Mailbox) -> dict[str, str]:
    return {"email": mailbox.address, **({"name": mailbox.name} if mailbox.name else {})}
