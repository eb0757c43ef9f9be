"""Tries an SMTP account step by step, on unsaved values too: a fresh connection, no cache, the server's own words."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime, make_msgid

from postier.drivers import smtp_opening as opening
from postier.drivers.base import CheckStep, Ports
from postier.drivers.smtp_advice import Step, advise
from postier.drivers.smtp_login import log_in
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_reply import WireBroken
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_wire import Conversation
from postier.drivers.smtp_words import safe_words
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError, DeliveryError, Stage, Unreachable

Resolve = Callable[[str, int], list[tuple[str, int]]]

_STAGES: dict[str, Stage] = {"login": "auth", "sender": "mail", "tls": "starttls", "greeting": "ehlo"}


class _Check:
    def __init__(self, options: SmtpOptions, ports: Ports, sender: Mailbox) -> None:
        self.options = options
        self.ports = ports
        self.sender = sender
        self.session: Session | None = None
        self.addresses: list[tuple[str, int]] = []

    def step(self, name: Step, work: Callable[[], tuple[str, dict[str, str]]]) -> CheckStep:
        """Do one step and time it. Whatever is expected to go wrong becomes a failed step."""
        began = time.monotonic()
        try:
            words, details = work()
        except WireBroken as broken:
            error: DeliveryError | ConfigurationError = Unreachable(str(broken), stage=_STAGES.get(name, "connect"))
        except (DeliveryError, ConfigurationError) as failure:
            error = failure
        else:
            return CheckStep(name, True, time.monotonic() - began, words, details=details)
        seconds = time.monotonic() - began
        return CheckStep(name, False, seconds, _words(error), advise(name, error, self.options, self.session))

    def resolve(self, resolve: Resolve) -> tuple[str, dict[str, str]]:
        self.addresses = resolve(self.options.host, self.options.port)
        return "", {"addresses": ", ".join(address for address, _ in self.addresses)}

    def connect(self) -> tuple[str, dict[str, str]]:
        self.session = opening.connect(self.options, self.addresses, self.ports.clock)
        self.session.wire.deadline = self.ports.clock() + self.options.total_deadline
        return "", {"address": str(self.session.wire.sock.getpeername()[0]), "port": str(self.options.port)}

    def encrypt(self, context: Callable[[], ssl.SSLContext | None]) -> tuple[str, dict[str, str]]:
        session, tls = self._live(), context()
        if self.options.security == "tls":
            opening.wrap(session, tls)
        else:
            opening.greet(session)
            opening.hello(session)
            opening.start_tls(session, tls)
        return "", _certificate(session)

    def greet(self) -> tuple[str, dict[str, str]]:
        session = self._live()
        if self.options.security != "starttls":
            opening.greet(session)
        opening.hello(session)
        return session.banner, {
            "extensions": ", ".join(f"{k} {v}".strip() for k, v in session.extensions.items())[:1000]
        }

    def log_in(self) -> tuple[str, dict[str, str]]:
        log_in(self._live(), self.ports.tokens)
        return "", {} if self.options.logs_in else {"login": "none asked for"}

    def try_sender(self) -> tuple[str, dict[str, str]]:
        session = self._live()
        address = self.sender.address if self.options.envelope_from is None else self.options.envelope_from
        extra = "" if address.isascii() else " SMTPUTF8"
        session.send(f"MAIL FROM:<{address}>{extra}\r\n".encode(), 1)
        reply = session.reply()
        if reply.code != 250:
            raise opening.refused(session, reply, "mail")
        session.ask("RSET")
        return safe_words(reply.text, session.secrets), {}

    def send_test(self, recipient: str) -> tuple[str, dict[str, str]]:
        session = self._live()
        conversation = Conversation(
            self.options, take=lambda: session, dial=lambda: session, give_back=Session.leave, clock=self.ports.clock
        )
        for _, result in conversation.run((_test_mail(self.sender, recipient),)):
            if isinstance(result, DeliveryError):
                raise result
            return result.text, {"provider_id": result.provider_id or ""}
        raise Unreachable("the conversation ended early")

    def _live(self) -> Session:
        assert self.session is not None
        return self.session


def check_steps(
    options: SmtpOptions,
    ports: Ports,
    *,
    sender: Mailbox,
    resolve: Resolve,
    context: Callable[[], ssl.SSLContext | None],
    test_recipient: str | None,
) -> Iterator[CheckStep]:
    """Yield each step as it ends; the first failed one is the last. The connection is closed whatever happens."""
    check = _Check(options, ports, sender)
    steps: list[tuple[Step, Callable[[], tuple[str, dict[str, str]]]]] = [
        ("resolve", lambda: check.resolve(resolve)),
        ("connect", check.connect),
    ]
    if options.security != "none":
        steps.append(("tls", lambda: check.encrypt(context)))
    steps += [("greeting", check.greet), ("login", check.log_in), ("sender", check.try_sender)]
    if test_recipient is not None:
        recipient = test_recipient
        steps.append(("test_mail", lambda: check.send_test(recipient)))
    try:
        for name, work in steps:
            told = check.step(name, work)
            yield told
            if not told.ok:
                return
    finally:
        if check.session is not None:
            check.session.leave()


def _certificate(session: Session) -> dict[str, str]:
    sock = session.wire.sock
    assert isinstance(sock, ssl.SSLSocket)
    certificate = sock.getpeercert() or {}
    names = [
        str(pair[1]) for pair in certificate.get("subjectAltName", ()) if isinstance(pair, tuple) and len(pair) == 2
    ]
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


def _test_mail(sender: Mailbox, recipient: str) -> Email:
    domain = sender.address.rpartition("@")[2] or "localhost"
    message_id = make_msgid(domain=domain if domain.isascii() else "localhost")
    text = "This is a test mail. The account can send.\r\n"
    lines = (
        f"From: {sender.address}",
        f"To: {recipient}",
        "Subject: Test mail",
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"Message-ID: {message_id}",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
    )
    wide = not (sender.address.isascii() and recipient.isascii())
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
        mime=("\r\n".join(lines) + "\r\n\r\n" + text).encode(),
        smtputf8=wide,
    )
