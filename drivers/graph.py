"""Mail through Microsoft Graph's sendMail, as MIME (learn.microsoft.com/graph/api/user-sendmail).

202 means taken, not delivered. Graph reads the recipients from the message itself, so those who are not to be seen
travel as Bcc, which Exchange takes off. The whole request may have 4 MB.
"""

from __future__ import annotations

import base64
import ssl
import uuid
from collections.abc import Callable
from urllib.parse import quote

from postier.drivers.base import TokenSource
from postier.drivers.https_wire import Answer, Limits, NoAnswer, NotSent, Resolve, exchange
from postier.drivers.microsoft_errors import graph_refusal
from postier.drivers.mime_recipients import without_strangers
from postier.schemas.email import Email
from postier.schemas.errors import AccountError, EmailRefused, OutcomeUnknown, Unreachable
from postier.schemas.receipt import Receipt

LARGEST_REQUEST = 4 * 1024 * 1024  # octets, after base64

_ANSWER_OCTETS = 65_536
_ACCEPTED = 202
_IDS = uuid.UUID("5b0cf3b4-8f0c-5a0e-9a6f-1d3f6f6c2f10")


class GraphSender:
    """Sends for one mailbox. Safe for threads; each request has a connection of its own."""

    def __init__(
        self,
        base_url: str,
        mailbox: str,
        *,
        tokens: TokenSource,
        resolve: Resolve,
        context: Callable[[], ssl.SSLContext],
        seconds: float,
        answer_seconds: float,
    ) -> None:
        self.url = f"{base_url}/v1.0/users/{quote(mailbox, safe='')}/sendMail"
        self._tokens = tokens
        self._resolve = resolve
        self._context = context
        self._limits = Limits(seconds=seconds, octets=_ANSWER_OCTETS, answer_seconds=answer_seconds)

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt. A refused token is replaced once: Graph took nothing then."""
        body = request_body(email)
        announced = False

        def announce() -> None:
            nonlocal announced
            if not announced:
                announced = True
                email.handing_over()

        token = self._tokens()
        answer = self.post(token, body, announce, email.delivery_id)
        if answer.status == 401:
            fresh = self._tokens(refused=token)
            if fresh != token:
                token = fresh
                answer = self.post(token, body, announce, email.delivery_id)
        return _receipt(answer, token)

    def send_with(self, token: str, email: Email) -> Receipt:
        """One mail with this token and no other: for a check."""
        return _receipt(self.post(token, request_body(email), email.handing_over, email.delivery_id), token)

    def post(self, token: str, body: bytes, announce: Callable[[], None], about: str) -> Answer:
        """One request. Raises Unreachable, OutcomeUnknown, or AccountError for a stranger's certificate."""
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "text/plain",
            "Accept": "application/json",
            "client-request-id": str(uuid.uuid5(_IDS, about)),
        }
        try:
            return exchange(
                "POST",
                self.url,
                headers=headers,
                body=body,
                limits=self._limits,
                resolve=self._resolve,
                context=self._context(),
                before_body=announce,
            )
        except NotSent as error:
            if error.certificate:
                raise AccountError(str(error), stage="connect", cause=error.certificate) from None
            raise Unreachable(str(error), stage="connect") from None
        except NoAnswer as error:
            evidence = {"octets": error.octets, "client_request_id": headers["client-request-id"]}
            raise OutcomeUnknown(f"Graph had the whole mail, then: {error}", evidence=evidence, stage="http") from None


def _receipt(answer: Answer, token: str) -> Receipt:
    if answer.status != _ACCEPTED:
        raise graph_refusal(answer, (token,))
    return Receipt(provider_id=_plain(answer.headers.get("request-id")), status="queued", code=_ACCEPTED)


def request_body(email: Email) -> bytes:
    """The mail as sendMail takes it. Raises EmailRefused when it is too long for it."""
    octets = base64.b64encode(addressed(email))
    if len(octets) > LARGEST_REQUEST:
        raise EmailRefused(
            f"the mail makes a request of {len(octets)} octets; Graph takes {LARGEST_REQUEST}",
            stage="http",
            reply_class="permanent_content",
        )
    return octets


def addressed(email: Email) -> bytes:
    """The MIME with exactly the envelope's recipients in it: who is not shown becomes Bcc."""
    head, body, hidden = without_strangers(email)
    bcc = ("Bcc: " + ",\r\n ".join(hidden) + "\r\n").encode() if hidden else b""
    return head + bcc + b"\r\n" + body


def _plain(value: str | None) -> str | None:
    return value[:100] if value and value.isascii() and value.isprintable() else None
