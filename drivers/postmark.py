"""The `postmark` driver: Postmark's API, POST /email.

API: https://postmarkapp.com/developer/api/email-api; error codes:
https://postmarkapp.com/developer/api/overview. Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "postmark"
    sender = { address = "no-reply@example.org", name = "Example" }
    limits = { max_recipients = 49 }       # Postmark takes 50 with the sender, who stands in To of a packet
    [accounts.default.options]
    server_token = "env:POSTMARK_TOKEN"    # required; of the server, not of the account
    message_stream = "outbound"            # a transactional or broadcast stream of that server
    timeout = 30                           # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

Our Message-ID is kept (`X-PM-KeepID`). A packet goes to Bcc, with the sender in To, who gets a copy. There is no
idempotency key: an answer that never comes is an unknown outcome. Open and link tracking are switched off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import StringConstraints

from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known, crowded, hidden, in_one_line, suppressed
from postier.schemas.email import Email
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
from postier.schemas.receipt import Receipt, Refusal

_ADDRESS = re.compile(r"[^\s,:<>]+@[^\s,<>]+")


class PostmarkOptions(ApiOptions):
    """The server's token, and the stream its mail belongs to."""

    server_token: Key
    message_stream: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,29}$")] = "outbound"


class PostmarkDriver(ApiDriver[PostmarkOptions]):
    """Sends by fields; error code 0 is the provider's promise to try."""

    Options = PostmarkOptions
    url = "https://api.postmarkapp.com"
    errors = (
        Known(AuthenticationFailed, 401),
        Known(AuthenticationFailed, code="10"),  # bad or missing token
        Known(TemporaryError, code="100"),  # maintenance
        Known(crowded, code="300", words="maximum of"),  # 50 recipients
        Known(SenderRefused, code="300", words="'from'"),
        Known(RecipientRefused, code="300", words="'to'"),
        Known(RecipientRefused, code="300", words="'bcc'"),
        Known(EmailRefused, code="300"),
        Known(SenderRefused, code="400"),  # no such sender signature
        Known(SenderRefused, code="401"),  # sender signature not confirmed
        Known(EmailRefused, code="402"),  # invalid JSON
        Known(EmailRefused, code="403"),  # incompatible JSON
        Known(partial(QuotaExhausted, until=3600.0), code="405"),  # out of credits
        Known(suppressed, code="406"),  # bounced hard or complained
        Known(EmailRefused, code="409"),  # JSON required
        Known(EmailRefused, code="411"),  # attachment type
        Known(SenderRefused, code="412"),  # account pending: its own domain only
        Known(SenderRefused, code="413"),  # account may not send
        Known(RateLimited, code="429"),
        Known(SenderRefused, words="message stream"),
        Known(EmailRefused, 413),  # over 10 MB
        Known(RateLimited, 429),
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        if email.smtputf8:
            raise EmailRefused("Postmark takes no internationalised addresses", stage="http")
        answer = self._post("/email", self._body(email), email)
        reply = answer.json()
        if answer.status == 200 and reply.get("ErrorCode") == 0:
            words = str(reply.get("Message", ""))
            provider_id = str(reply.get("MessageID", "")) or None
            return Receipt(provider_id, "queued", 200, text=self._safe(words), refused=_left_out(words, email))
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """GET /server: the server the token belongs to."""
        answer = self._get("/server")
        reply = answer.json()
        if answer.status != 200 or "Name" not in reply:
            raise self._refused(answer)
        return {"server": self._safe(str(reply["Name"])), "delivery": str(reply.get("DeliveryType", ""))[:20]}

    def _login(self) -> Mapping[str, str]:
        return {"X-Postmark-Server-Token": self.options.server_token.get_secret_value()}

    def _body(self, email: Email) -> dict[str, Any]:
        headers = (("Message-ID", email.message_id), ("X-PM-KeepID", "true"), *email.headers)
        fields = {
            "From": in_one_line(email.sender),
            "To": ", ".join(map(in_one_line, email.to)),
            "Bcc": ", ".join(hidden(email)),
            "ReplyTo": in_one_line(email.reply_to) if email.reply_to else "",
            "Subject": email.subject,
            "TextBody": email.text,
            "HtmlBody": email.html,
        }
        return {name: value for name, value in fields.items() if value} | {
            "Headers": [{"Name": name, "Value": value} for name, value in headers],
            "MessageStream": self.options.message_stream,
            "TrackOpens": False,
            "TrackLinks": "None",
        }

    def _refused(self, answer: Answer) -> DeliveryError:
        reply = answer.json()
        return self._refusal(answer, str(reply.get("Message", "")), reply.get("ErrorCode"))


def _left_out(words: str, email: Email) -> tuple[Refusal, ...]:
    """The inactive recipients of a mail that the others get: "Message OK, but will not deliver to …"."""
    inactive = words.partition("inactive addresses")[2]
    named = {found.group().rstrip(".").lower() for found in _ADDRESS.finditer(inactive)}
    error = suppressed("the recipient is inactive at Postmark", code=406, stage="http")
    return tuple(Refusal(address, error) for address in email.recipients if address.lower() in named)
