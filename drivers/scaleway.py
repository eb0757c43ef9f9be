"""The `scaleway` driver: Scaleway Transactional Email, API v1alpha1, POST …/emails.

API: https://www.scaleway.com/en/developers/api/transactional-email/; how to:
https://www.scaleway.com/en/docs/transactional-email/api-cli/send-emails-with-api/; the standard errors:
https://github.com/scaleway/scaleway-sdk-go/blob/master/scw/errors.go. Read in November 2026.

A complete sample account:

    [accounts.default]
    driver = "scaleway"
    sender = { address = "no-reply@example.org", name = "Example" }
    limits = { max_recipients = 9 }             # Scaleway takes 10 with the sender, who stands in To of a packet
    [accounts.default.options]
    secret_key = "env:SCW_SECRET_KEY"           # required; of an application with TransactionalEmailFullAccess
    project_id = "6170692e-7363-616c-6577-61792e636f6d"   # required
    region = "fr-par"
    timeout = 30                                # seconds

`base_url`, `allow_hosts` and `ca_file` are those of `postier.drivers.http_api.ApiOptions`.

Every recipient becomes an email of its own there; the receipt carries the first one's id. The Message-ID is Scaleway's.
A packet goes to Bcc, with the sender in To, who gets a copy. There is no idempotency key: an answer that never comes is
an unknown outcome. Internationalised addresses are refused here: Scaleway takes them and writes a broken mail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import StringConstraints

from postier.drivers.http_api import Answer, ApiDriver, ApiOptions, Key, Known, crowded, hidden, in_one_line
from postier.schemas.email import Email, Mailbox
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
from postier.schemas.receipt import Receipt

_TELLING = ("argument_name", "reason", "help_message", "resource")
_ROOT = re.compile(r"[a-z_]+")  # "to" of "to", "to.email" or "to[0]"


class ScalewayOptions(ApiOptions):
    """The secret key, the project its mail belongs to, and the region."""

    secret_key: Key
    project_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}-[a-z]{3}$")] = "fr-par"


class ScalewayDriver(ApiDriver[ScalewayOptions]):
    """Sends by fields; a list of emails is the provider's promise to try."""

    Options = ScalewayOptions
    url = "https://api.scaleway.com"
    errors = (
        Known(AuthenticationFailed, 401),
        Known(AuthenticationFailed, code="denied_authentication"),
        Known(partial(QuotaExhausted, until=3600.0), code="quotas_exceeded"),
        Known(SenderRefused, code="permissions_denied"),
        Known(SenderRefused, code="not_found"),  # the project or region
        Known(SenderRefused, code="precondition_failed"),  # the domain is not checked yet
        Known(TemporaryError, code="transient_state"),
        Known(TemporaryError, code="resource_locked"),
        Known(SenderRefused, code="invalid_arguments.from"),
        Known(SenderRefused, code="invalid_arguments.project_id"),
        Known(SenderRefused, code="invalid_arguments.region"),
        Known(crowded, code="invalid_arguments.to", words="recipients"),
        Known(crowded, code="invalid_arguments.bcc", words="recipients"),
        Known(RecipientRefused, code="invalid_arguments.to", words="format"),
        Known(RecipientRefused, code="invalid_arguments.bcc", words="format"),
        Known(EmailRefused, 400),
        Known(RateLimited, 429),
    )

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        if email.smtputf8:
            raise EmailRefused("Scaleway takes no internationalised addresses", stage="http")
        answer = self._post(f"{self._room()}/emails", self._body(email), email)
        emails = answer.json().get("emails")
        if answer.status == 200 and isinstance(emails, list) and emails and isinstance(emails[0], dict):
            return Receipt(str(emails[0].get("id", "")) or None, status="queued", code=200)
        raise self._refused(answer)

    def probe(self) -> Mapping[str, str]:
        """GET …/domains: the project's domains."""
        answer = self._get(f"{self._room()}/domains?project_id={self.options.project_id}&page_size=1")
        reply = answer.json()
        if answer.status != 200 or "total_count" not in reply:
            raise self._refused(answer)
        return {"domains": str(reply["total_count"])[:20]}

    def _room(self) -> str:
        return f"/transactional-email/v1alpha1/regions/{self.options.region}"

    def _login(self) -> Mapping[str, str]:
        return {"X-Auth-Token": self.options.secret_key.get_secret_value()}

    def _body(self, email: Email) -> dict[str, Any]:
        headers = email.headers
        if email.reply_to:
            headers += (("Reply-To", in_one_line(email.reply_to)),)
        body: dict[str, Any] = {
            "project_id": self.options.project_id,
            "from": _person(email.sender),
            "to": [_person(one) for one in email.to],
            "subject": email.subject,
            "text": email.text,
            "html": email.html,
            "additional_headers": [{"key": name, "value": value} for name, value in headers],
        }
        if others := hidden(email):
            body["bcc"] = [{"email": address} for address in others]
        return body

    def _refused(self, answer: Answer) -> DeliveryError:
        reply = answer.json()
        details = reply.get("details")
        rows = [row for row in details if isinstance(row, dict)] if isinstance(details, list) else []
        named = [" ".join(str(row[key]) for key in _TELLING if row.get(key)) for row in rows[:3]]
        words = [str(reply.get("message", "")), *named, str(reply.get("help_message", ""))]
        kind = str(reply.get("type", ""))
        if kind == "invalid_arguments" and rows:
            root = _ROOT.match(str(rows[0].get("argument_name", "")))
            kind += f".{root.group()}" if root else ""
        return self._refusal(answer, ": ".join(filter(None, words)), kind)


def _person(mailbox: Mailbox) -> dict[str, str]:
    return {"email": mailbox.address, **({"name": mailbox.name} if mailbox.name else {})}
