"""Tries an account of an HTTP API step by step: fresh connections, the provider's own words, one sentence of advice."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, make_msgid
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from postier.drivers.base import CheckStep
from postier.drivers.http_wire import Dialler, Stream
from postier.drivers.replies import advice, classify
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError, DeliveryError, SenderRefused
from postier.schemas.receipt import Receipt

Step = Literal["resolve", "connect", "tls", "login", "sender", "test_mail"]
Work = Callable[[], tuple[str, Mapping[str, str]]]
Advise = Callable[[Step, DeliveryError | ConfigurationError], str]


class Tried(Protocol):
    """A driver over HTTP, as far as a check needs it; `base` is its URL."""

    base: str
    dialler: Dialler
    sender: Mailbox

    def tls_context(self) -> ssl.SSLContext:
        """What its connections are verified with."""

    def probe(self) -> Mapping[str, str]:
        """Ask something harmless that needs the login."""

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""

    def close(self) -> None:
        """Give back what it holds."""


_ADVICE: dict[str, str] = {
    "resolve": "Check base_url and the name server; hosts of one's own must be named in allow_hosts.",
    "connect": "Check base_url, and that a firewall lets HTTPS out to this host.",
    "tls": "Check that base_url is the provider's own host; set ca_file if the authority is your own.",
    "login": "Check the key, its permissions and the region: make a new key with the right to send.",
    "test_mail": "Check that the sender is verified with the provider, and read its words.",
}


def check_steps(
    driver: Tried,
    *,
    test_recipient: str | None,
    more: Sequence[tuple[Step, Work]] = (),
    advise: Advise | None = None,
) -> Iterator[CheckStep]:
    """Yield each step as it ends; the first failed one is the last. Closes `driver`, which must be nobody else's.

    `more` are a driver's own steps after the login, `advise` its sentences for a failed step.
    """
    check = _Check(driver)
    steps: list[tuple[Step, Work]] = [("resolve", check.resolve), ("connect", check.connect)]
    if urlsplit(driver.base).scheme == "https":
        steps.append(("tls", check.encrypt))
    steps += [("login", check.log_in), *more]
    if test_recipient is not None:
        recipient = test_recipient
        steps.append(("test_mail", lambda: check.send_test(recipient)))
    try:
        for name, work in steps:
            told = _step(name, work, advise or _advice)
            yield told
            if not told.ok:
                return
    finally:
        check.close()
        driver.close()


def _step(name: Step, work: Work, advise: Advise) -> CheckStep:
    began = time.monotonic()
    try:
        words, details = work()
    except (DeliveryError, ConfigurationError) as error:
        return CheckStep(name, False, time.monotonic() - began, _words(error), advise(name, error))
    return CheckStep(name, True, time.monotonic() - began, words, details=dict(details))


class _Check:
    def __init__(self, driver: Tried) -> None:
        self.driver = driver
        parts = urlsplit(driver.base)
        self.host = parts.hostname or ""
        self.port = parts.port or (80 if parts.scheme == "http" else 443)
        self.addresses: list[tuple[str, int]] = []
        self.stream: Stream | None = None

    def resolve(self) -> tuple[str, Mapping[str, str]]:
        self.addresses = self.driver.dialler.resolve(self.host, self.port)
        return "", {"host": self.host, "addresses": ", ".join(address for address, _ in self.addresses)}

    def connect(self) -> tuple[str, Mapping[str, str]]:
        self.stream = self.driver.dialler.connect(self.addresses)
        return "", {"address": str(self.stream.sock.getpeername()[0]), "port": str(self.port)}

    def encrypt(self) -> tuple[str, Mapping[str, str]]:
        assert self.stream is not None
        self.stream = self.stream.start_tls(self.driver.tls_context(), self.host)
        return "", _certificate(self.stream.sock)

    def log_in(self) -> tuple[str, Mapping[str, str]]:
        self.close()
        return "", self.driver.probe()

    def send_test(self, recipient: str) -> tuple[str, Mapping[str, str]]:
        receipt = self.driver.send(trial_mail(self.driver.sender, recipient))
        if receipt.refused:
            raise receipt.refused[0].error
        return receipt.text, {"provider_id": receipt.provider_id or ""}

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None


def _certificate(sock: Any) -> Mapping[str, str]:
    assert isinstance(sock, ssl.SSLSocket)
    certificate = sock.getpeercert() or {}
    pairs = certificate.get("subjectAltName", ())
    names = [str(pair[1]) for pair in pairs if isinstance(pair, tuple) and len(pair) == 2]
    return {
        "protocol": sock.version() or "",
        "names": ", ".join(names)[:500],
        "valid_from": str(certificate.get("notBefore", "")),
        "valid_until": str(certificate.get("notAfter", "")),
    }


def _words(error: DeliveryError | ConfigurationError) -> str:
    if isinstance(error, ConfigurationError) or error.code is None:
        return str(error)
    return f"{error.code} {error.text}"


def _advice(name: Step, error: DeliveryError | ConfigurationError) -> str:
    if isinstance(error, SenderRefused) and error.code is not None and 300 <= error.code <= 399:
        return "The host redirects, so it is not the API itself: set base_url to where the API answers."
    if name == "test_mail" and isinstance(error, DeliveryError) and error.code is not None:
        meaning = str(classify(error.code, error.enhanced, error.text, stage="http"))
        return str(advice(error.code, error.enhanced, error.text, meaning) or _ADVICE[name])
    return _ADVICE[name]


def trial_mail(sender: Mailbox, recipient: str) -> Email:
    """A short mail that says it is a test."""
    domain = sender.address.rpartition("@")[2] or "localhost"
    message_id = make_msgid(domain=domain if domain.isascii() else "localhost")
    text = "This is a test mail. The account can send.\r\n"
    headers = (("Auto-Submitted", "auto-generated"),)
    lines = (
        f"From: {sender.address}",
        f"To: {recipient}",
        "Subject: Test mail",
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"Message-ID: {message_id}",
        *(f"{name}: {value}" for name, value in headers),
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
    )
    return Email(
        delivery_id=message_id,  # another each time: a provider that knows repeats must not take it for one
        message_id=message_id,
        envelope_from=sender.address,
        recipients=(recipient,),
        sender=sender,
        to=(Mailbox(recipient),),
        subject="Test mail",
        text=text,
        html="",
        mime=("\r\n".join(lines) + "\r\n\r\n" + text).encode(),
        headers=headers,
        smtputf8=not (sender.address.isascii() and recipient.isascii()),
    )
