"""The `mailjet` driver: Mailjet's Send API v3.1, POST /v3.1/send.

API: https://dev.mailjet.com/email/guides/send-api-v31/; status codes:
https://dev.mailjet.com/docs/email-api/email_api_overview/status_codes; error codes and forbidden headers:
https://github.com/mailjet/api-documentation/blob/master/guides/_send-api.md. Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "mailjet"
    sender = { address = "no-reply@example.org", name = "Example" }
    limits = { max_recipients = 49 }       # Mailjet takes 50 with the sender, who stands in To of a packet
    [accounts.default.options]
    api_key = "env:MAILJET_API_KEY"        # required
    secret_key = "env:MAILJET_SECRET_KEY"  # required
    region = "eu"                          # eu | us (accounts of Mailjet's US site)
    timeout = 30                           # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

The delivery's id travels as CustomID and comes back in events; it does not stop a second copy, so an answer that never
comes is an unknown outcome. Mailjet makes its own Message-ID and List-Id: it refuses mail that brings them, so ours are
left out. A packet goes to Bcc, with the sender in To, who gets a copy. Open and click tracking are switched off.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known, crowded, hidden
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    RateLimited,
    RecipientRefused,
    SenderRefused,
)
from postier.schemas.receipt import Receipt

_HOSTS = {"eu": "https://api.mailjet.com", "us": "https://api.us.mailjet.com"}
# Those of the list that our mails may carry; the fields of the message stand for the others.
_FORBIDDEN = frozenset({"list-id", "message-id", "date", "sender", "user-agent", "x-mailer", "x-feedback-id"})


class MailjetOptions(ApiOptions):
    """The pair of keys, and where the account lives."""

    api_key: Key
    secret_key: Key
    region: Literal["eu", "us"] = "eu"


class MailjetDriver(ApiDriver[MailjetOptions]):
    """Sends by fields; the status "success" is the provider's promise to try."""

    Options = MailjetOptions
    errors = (
        Known(AuthenticationFailed, 401),  # mj-0001 a suspended key, mj-0015 wrong credentials
        Known(SenderRefused, code="send-0006"),  # no right to set Sender
        Known(SenderRefused, code="send-0007"),
        Known(SenderRefused, code="send-0008"),  # not an authorised sender
        Known(crowded, code="send-0015"),
        Known(crowded, code="mj-0008", words="(bcc"),
        Known(SenderRefused, code="mj-0013", words="(from"),  # an invalid address, and whose
        Known(RecipientRefused, code="mj-0013", words="(to"),
        Known(RecipientRefused, code="mj-0013", words="(bcc"),
        Known(SenderRefused, 403),
        Known(EmailRefused, 400),
        Known(EmailRefused, 413),
        Known(RateLimited, 429),  # a line of text, not JSON
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        answer = self._post("/v3.1/send", {"Messages": [self._message(email)]}, email)
        told = _first(answer.json().get("Messages"))
        if answer.status == 200 and told.get("Status") == "success":
            person = _first(told.get("To")) or _first(told.get("Bcc"))
            return Receipt(str(person.get("MessageID", "")) or None, status="queued", code=200)
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """GET /v3/REST/sender: the senders of the account."""
        answer = self._get("/v3/REST/sender?Limit=1")
        reply = answer.json()
        if answer.status != 200 or "Total" not in reply:
            raise self._refused(answer)
        return {"senders": str(reply["Total"])[:20]}

    def _own_url(self) -> str:
        return _HOSTS[self.options.region]

    def _login(self) -> Mapping[str, str]:
        pair = f"{self.options.api_key.get_secret_value()}:{self.options.secret_key.get_secret_value()}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    def _message(self, email: Email) -> dict[str, Any]:
        message: dict[str, Any] = {
            "From": _person(email.sender),
            "To": [_person(one) for one in email.to],
            "Subject": email.subject,
            "CustomID": email.delivery_id,
            "TrackOpens": "disabled",
            "TrackClicks": "disabled",
        }
        if email.text:
            message["TextPart"] = email.text
        if email.html:
            message["HTMLPart"] = email.html
        if headers := {name: value for name, value in email.headers if name.lower() not in _FORBIDDEN}:
            message["Headers"] = headers
        if others := hidden(email):
            message["Bcc"] = [{"Email": address} for address in others]
        if email.reply_to:
            message["ReplyTo"] = _person(email.reply_to)
        return message

    def _refused(self, answer: Answer) -> DeliveryError:
        reply = answer.json()
        error = _first(_first(reply.get("Messages")).get("Errors")) or reply
        related = error.get("ErrorRelatedTo")
        where = f" ({', '.join(map(str, related))})" if isinstance(related, list) and related else ""
        words = str(error.get("ErrorMessage", "")) + where
        return self._refusal(answer, words, error.get("ErrorCode"))


def _first(rows: object) -> dict[str, Any]:
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}


def _person(mailbox: Mailbox) -> dict[str, str]:
    return {"Email": mailbox.address, **({"Name": mailbox.name} if mailbox.name else {})}
