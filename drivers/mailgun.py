"""The `mailgun` driver: Mailgun's API v3, POST /v3/{domain}/messages.mime.

API: https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages; status codes:
https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses. Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "mailgun"
    sender = { address = "no-reply@mg.example.org", name = "Example" }
    [accounts.default.options]
    api_key = "env:MAILGUN_API_KEY"    # required; a domain sending key is enough
    domain = "mg.example.org"          # required; the sending domain
    region = "us"                      # us | eu: where the domain was made
    timeout = 30                       # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

The mail goes as we wrote it, Message-ID and all headers kept, to the envelope's recipients (at most 1,000). There is no
idempotency key: an answer that never comes is an unknown outcome. Open and click tracking are switched off.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal

import httpx2
from pydantic import StringConstraints

from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known
from postier.schemas.email import Email
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

_HOSTS = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
_DOMAIN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}$"


class MailgunOptions(ApiOptions):
    """The key, the sending domain, and where that domain lives."""

    api_key: Key
    domain: Annotated[str, StringConstraints(to_lower=True, max_length=253, pattern=_DOMAIN)]
    region: Literal["us", "eu"] = "us"


class MailgunDriver(ApiDriver[MailgunOptions]):
    """Sends the MIME message; 200 with an id is the provider's promise to try."""

    Options = MailgunOptions
    errors = (
        Known(SenderRefused, 200, words="magnificent api"),  # the greeting of a path that is not the API's
        Known(AuthenticationFailed, 401),
        Known(QuotaExhausted, words="limit exceeded"),  # status 420, with the hour it ends
        Known(SenderRefused, words="not allowed to send"),
        Known(SenderRefused, words="sandbox subdomain"),
        Known(SenderRefused, words="activate your mailgun account"),
        Known(SenderRefused, 404),  # "Domain not found", often the other region
        Known(SenderRefused, 400, words="from parameter"),
        Known(RecipientRefused, 400, words="to parameter is not a valid address"),
        Known(SenderRefused, 403),
        Known(EmailRefused, 400),
        Known(EmailRefused, 413),
        Known(RateLimited, 429),
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        content, kind = _form(email)
        answer = self._call("POST", f"/v3/{self.options.domain}/messages.mime", content, kind, email=email)
        reply = answer.json()
        if answer.status == 200 and isinstance(reply.get("id"), str):
            return Receipt(reply["id"], "queued", 200, text=self._safe(str(reply.get("message", ""))))
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """An empty POST, which Mailgun turns down after the login: a sending key may not read anything."""
        answer = self._call("POST", f"/v3/{self.options.domain}/messages", b"to=", "application/x-www-form-urlencoded")
        if answer.status == 400 and answer.json().get("message"):
            return {"domain": self.options.domain}
        raise self._refused(answer)

    def _own_url(self) -> str:
        return _HOSTS[self.options.region]

    def _login(self) -> Mapping[str, str]:
        pair = f"api:{self.options.api_key.get_secret_value()}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    def _refused(self, answer: Answer) -> DeliveryError:
        message = answer.json().get("message")
        plain = answer.headers.get("content-type", "").startswith("text/plain") or answer.status == 200
        words = str(message) if message else answer.body[:300].decode("utf-8", "replace") if plain else ""
        error = self._refusal(answer, words.replace("'", ""))
        if isinstance(error, QuotaExhausted):
            error.until = _until(words)
        return error


def _until(words: str) -> float:
    """Seconds until the window ends: "… limit exceeded, try again after Mon, 25 Aug 2025 07:00:31 UTC"."""
    with suppress(ValueError, TypeError, OverflowError):  # a year may have any number of digits
        moment = parsedate_to_datetime(words.partition("try again after ")[2].strip())
        return min(max(moment.timestamp() - time.time(), 60.0), 86_400.0)
    return 3_600.0


def _form(email: Email) -> tuple[bytes, str]:
    """The multipart form, and its Content-Type."""
    form = httpx2.Request(
        "POST",
        "https://mailgun.invalid",
        data={"to": list(dict.fromkeys(email.recipients)), "o:tracking": "no"},
        files={"message": ("message.mime", email.mime, "message/rfc822")},
    )
    return form.read(), form.headers["content-type"]
