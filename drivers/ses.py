"""The `ses` driver: Amazon SES API v2, SendEmail with a raw message, POST /v2/email/outbound-emails.

API: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html; common errors:
https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html; quotas:
https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html. Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "ses"
    sender = { address = "no-reply@example.org", name = "Example" }
    [accounts.default.options]
    region = "eu-west-1"                     # required
    access_key = "env:AWS_ACCESS_KEY_ID"     # required; not the SMTP credentials
    secret_key = "env:AWS_SECRET_ACCESS_KEY" # required; its user needs ses:SendRawEmail and ses:SendEmail
    session_token = "env:AWS_SESSION_TOKEN"  # only with temporary credentials
    configuration_set = "default"            # optional
    timeout = 30                             # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

The mail goes as we wrote it to the envelope's recipients (at most 50); SES replaces Message-ID and Date. There is no
idempotency key: an answer that never comes is an unknown outcome. Signing needs a clock that is right to five minutes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import StringConstraints

from postier.drivers.aws_sign import Scope, signature_header, stamp
from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known
from postier.schemas.email import Email
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    QuotaExhausted,
    RateLimited,
    SenderRefused,
    TemporaryError,
)
from postier.schemas.receipt import Receipt

_drained = partial(QuotaExhausted, until=3600.0)  # the 24 hours slide


class SesOptions(ApiOptions):
    """The credentials of a user or role, and the region the sender is verified in."""

    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+){1,3}-\d{1,2}$")]
    access_key: Key
    secret_key: Key
    session_token: Key | None = None
    configuration_set: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None


class SesDriver(ApiDriver[SesOptions]):
    """Sends the MIME message; a MessageId is the provider's promise to try."""

    Options = SesOptions
    errors = (
        Known(_drained, words="daily message quota exceeded"),
        Known(_drained, words="daily sending quota exceeded"),
        Known(RateLimited, code="toomanyrequestsexception"),
        Known(RateLimited, code="throttlingexception"),
        Known(RateLimited, code="throttling"),
        Known(RateLimited, words="maximum sending rate exceeded"),
        Known(_drained, code="limitexceededexception"),
        Known(SenderRefused, code="messagerejected", words="not verified"),  # of the recipient too, in the sandbox
        Known(SenderRefused, code="messagerejected", words="sending paused"),
        Known(EmailRefused, code="messagerejected"),
        Known(SenderRefused, code="mailfromdomainnotverifiedexception"),
        Known(SenderRefused, code="sendingpausedexception"),
        Known(SenderRefused, code="accountsuspendedexception"),
        Known(SenderRefused, code="notfoundexception"),  # the configuration set
        Known(SenderRefused, code="accessdeniedexception"),  # the policy
        Known(EmailRefused, code="badrequestexception"),
        Known(TemporaryError, code="internalfailure"),
        Known(TemporaryError, code="internalserviceerrorexception"),
        Known(TemporaryError, code="serviceunavailable"),
        Known(AuthenticationFailed, 401),
        Known(AuthenticationFailed, 403),  # UnrecognizedClient, InvalidSignature, ExpiredToken, OptInRequired, …
        Known(EmailRefused, 413),
        Known(RateLimited, 429),
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        answer = self._post("/v2/email/outbound-emails", self._body(email), email)
        message_id = answer.json().get("MessageId")
        if answer.status == 200 and isinstance(message_id, str):
            return Receipt(provider_id=message_id, status="queued", code=200)
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """GET /v2/email/account: quota and state. A user who may not read it has shown a good signature."""
        answer = self._get("/v2/email/account")
        reply = answer.json()
        if _code(answer) == "AccessDeniedException":
            return {"account": "may not be read by this user"}
        if answer.status != 200 or "SendingEnabled" not in reply:
            raise self._refused(answer)
        if reply["SendingEnabled"] is False:
            raise SenderRefused("sending is paused for this account", code=200, stage="http")
        quota = reply.get("SendQuota")
        return {
            "sandbox": "no" if reply.get("ProductionAccessEnabled") else "yes",
            **{name: str(value)[:20] for name, value in (quota.items() if isinstance(quota, dict) else ())},
        }

    def _own_url(self) -> str:
        tail = ".cn" if self.options.region.startswith("cn-") else ""
        return f"https://email.{self.options.region}.amazonaws.com{tail}"

    def _login_for(self, method: str, path: str, content: bytes) -> Mapping[str, str]:
        now, parts = datetime.now(UTC), urlsplit(self.base + path)
        usual = {"https": 443, "http": 80}[parts.scheme]
        host = parts.netloc.removesuffix(f":{usual}")
        headers = {"Host": host, "X-Amz-Date": stamp(now)}
        if self.options.session_token:
            headers["X-Amz-Security-Token"] = self.options.session_token.get_secret_value()
        scope = Scope(
            self.options.access_key.get_secret_value(),
            self.options.secret_key.get_secret_value(),
            self.options.region,
            "ses",
        )
        signed = signature_header(method, parts.path, parts.query, headers, content, scope=scope, at=now)
        return headers | {"Authorization": signed}

    def _body(self, email: Email) -> dict[str, Any]:
        body: dict[str, Any] = {
            "Content": {"Raw": {"Data": base64.b64encode(email.mime).decode()}},
            "Destination": {"ToAddresses": list(dict.fromkeys(email.recipients))},  # the envelope: To stays as written
        }
        if self.options.configuration_set:
            body["ConfigurationSetName"] = self.options.configuration_set
        return body

    def _refused(self, answer: Answer) -> DeliveryError:
        reply = answer.json()
        words = str(reply.get("message") or reply.get("Message") or _code(answer))
        return self._refusal(answer, words, _code(answer))


def _code(answer: Answer) -> str:
    """The error's name, out of a header like `MessageRejected:http://internal.amazon.com/…` or the body."""
    name = answer.headers.get("x-amzn-errortype") or str(answer.json().get("__type", ""))
    return name.partition(":")[0].rpartition("#")[2]
