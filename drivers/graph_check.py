"""Tries a Graph account step by step: the options, a token that nobody cached, the mailbox, a test mail."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from typing import Literal

from postier.drivers.base import CheckStep
from postier.drivers.graph import GraphSender
from postier.drivers.microsoft_errors import graph_refusal
from postier.drivers.tokens import SharedTokens
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import AuthenticationFailed, ConfigurationError, DeliveryError, SenderRefused

Name = Literal["options", "connect", "login", "sender", "test_mail"]
Work = Callable[[], tuple[str, dict[str, str]]]

_NOT_BASE64 = b"!"  # Graph looks at who may send before it looks into the mail, and this one cannot be sent


def options_step(warnings: list[str]) -> CheckStep:
    """The options were checked when the driver was made; what they warn of is said here."""
    return CheckStep("options", True, 0.0, " ".join(warnings))


def login_step(tokens: SharedTokens) -> tuple[CheckStep, str | None]:
    """A token asked for now. Its permissions are shown as far as the token tells them."""
    held: list[str] = []

    def work() -> tuple[str, dict[str, str]]:
        held.append(tokens.uncached())
        permissions = _permissions(held[0])
        return "", {"permissions": permissions} if permissions else {}

    step = _step("login", work)
    return step, held[0] if step.ok else None


def graph_steps(
    sender_way: GraphSender, token: str, *, sender: Mailbox, test_recipient: str | None
) -> Iterator[CheckStep]:
    """Yield each step as it ends; the first failed one is the last."""

    def may_send() -> tuple[str, dict[str, str]]:
        answer = sender_way.post(token, _NOT_BASE64, lambda: None, "check")
        if answer.status != 400:
            raise graph_refusal(answer, (token,))
        error = graph_refusal(answer, (token,))
        if isinstance(error, SenderRefused):
            raise error
        return "", {}

    step = _step("sender", may_send)
    yield step
    if step.ok and test_recipient is not None:
        email = trial_mail(sender, test_recipient)

        def send() -> tuple[str, dict[str, str]]:
            receipt = sender_way.send_with(token, email)
            return "", {"provider_id": receipt.provider_id or ""}

        yield _step("test_mail", send)


def trial_mail(sender: Mailbox, recipient: str) -> Email:
    """A mail that says that it is a test."""
    text = "This is a test mail. The account can send.\r\n"
    domain = sender.address.rpartition("@")[2]
    message_id = make_msgid(domain=domain if domain.isascii() and domain else "localhost")
    message = EmailMessage(SMTP.clone(utf8=not (sender.address.isascii() and recipient.isascii())))
    message["From"], message["To"], message["Subject"] = sender.address, recipient, "Test mail"
    message["Date"], message["Message-ID"] = format_datetime(localtime()), message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return Email(
        delivery_id="check",
        message_id=message_id,
        envelope_from=sender.address,
        recipients=(recipient,),
        sender=sender,
        to=(Mailbox(recipient),),
        subject="Test mail",
        text=text,
        html="",
        mime=message.as_bytes(),
    )


def _step(name: Name, work: Work) -> CheckStep:
    began = time.monotonic()
    try:
        words, details = work()
    except (DeliveryError, ConfigurationError) as error:
        return CheckStep(name, False, time.monotonic() - began, _words(error), _advice(name, error))
    return CheckStep(name, True, time.monotonic() - began, words, details=details)


def _words(error: DeliveryError | ConfigurationError) -> str:
    code = getattr(error, "code", None)
    return str(error) if code is None else f"{code} {error}"


def _advice(name: Name, error: DeliveryError | ConfigurationError) -> str:
    text = str(error)
    if text.startswith("certificate: "):
        return "The server's certificate is not the expected one: check the address, or ca_file if it is your own."
    if text.startswith("oauth_unavailable"):
        return (
            "The token service gave no token just now: try again, and check authority and the network if it stays so."
        )
    if isinstance(error, AuthenticationFailed) and name == "login":
        sentence = text.partition(": ")[2]
        return sentence if sentence.endswith(".") else "Check tenant_id, client_id and the app's proof."
    return _BY_STEP[name]


_BY_STEP: dict[str, str] = {
    "options": "Mend the option that is named.",
    "connect": "Check that a firewall lets https through.",
    "login": "Check tenant_id, client_id and the app's proof.",
    "sender": "Check the mailbox's spelling, that the app has Mail.Send with admin consent, and that no policy keeps "
    "it from this mailbox.",
    "test_mail": "Check the recipient's address and that the mailbox may send as this From address.",
}


def _permissions(token: str) -> str:
    """What an access token says about itself; Microsoft may change its form at any time, so nothing depends on it."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        roles = claims.get("roles") or str(claims.get("scp") or "").split()
        return ", ".join(str(role) for role in roles)[:300]
    except (IndexError, ValueError, AttributeError, TypeError):
        return ""
