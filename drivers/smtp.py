"""The `smtp` driver: any SMTP server, over TLS unless told otherwise.

A complete sample account:

    [accounts.school]
    driver = "smtp"
    sender = { address = "office@school.example", name = "The school" }
    [accounts.school.options]
    host = "mail.school.example"   # required
    port = 587                     # 587 by default; 465 means TLS from the first octet
    security = "starttls"          # starttls | tls | none
    auth = "auto"                  # auto | plain | login | xoauth2 | none
    username = "office@school.example"
    password = "env:SCHOOL_SMTP_PASSWORD"
    timeout_ms = 30000             # milliseconds per reply

`postier.drivers.smtp_options.SmtpOptions` lists every option. Standards: RFC 5321, 3207, 4954, 2920, 1870, 6531.

What ends how: nothing sent and the moment is wrong (unreachable, TLS not to be had): Unreachable. A certificate that is
not the host's: AccountError, its text `certificate: ` and which fault, because a person has to mend it. A connection
lost before the final dot was wholly written: TemporaryError; after it: OutcomeUnknown.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Iterator

from postier.drivers.base import CheckStep, Driver, Ports, Result
from postier.drivers.egress import public_only_resolver
from postier.drivers.session_pool import SessionPool
from postier.drivers.smtp_check import check_steps
from postier.drivers.smtp_opening import dial, tls_context
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_wire import Conversation, Overlap
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError, DeliveryError, Unreachable
from postier.schemas.receipt import Receipt

__all__ = ["SmtpDriver", "SmtpOptions"]


class SmtpDriver(Driver[SmtpOptions]):
    """Sends over SMTP; keeps idle sessions. Safe for threads: each conversation has its own session."""

    Options = SmtpOptions
    announces_handover = True

    def __init__(self, options: SmtpOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        if options.logs_in and options.password is None and self.ports.tokens is None:
            raise ConfigurationError(
                "password: missing for this username (or set auth = 'none' and leave the username out)"
            )
        try:
            self._resolve = self.ports.resolve or public_only_resolver(options.allow_hosts)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._pool: SessionPool[Session] = SessionPool(
            size=self.ports.idle_sessions,
            idle_seconds=options.idle_seconds,
            max_mails=options.max_mails_per_session,
            clock=self.ports.clock,
        )
        self._overlap = Overlap()
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        if options.ca_file:
            self._tls()

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        ((_, result),) = self.converse((email,))
        if isinstance(result, DeliveryError):
            raise result
        return result

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Several mails over one session, pipelined where the server offers it.

        The next mail is pulled while the server works on the one before; that one's result is yielded before the next
        body leaves. When no session can be opened, every further mail gets that error without a new try: stop `emails`.
        An error raised by `handing_over` or by `emails` passes through; whatever was not yielded was not handed over.
        """
        conversation = Conversation(
            self.options,
            take=lambda: self._pool.take() or self._dial(),
            dial=self._dial,
            give_back=self._pool.give_back,
            clock=self.ports.clock,
            overlap=self._overlap,
        )
        return conversation.run(emails)

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Resolve, connect, TLS, greeting, login, sender and, when asked for, a test mail; on a fresh connection."""
        return check_steps(
            self.options,
            self.ports,
            sender=self.sender,
            resolve=self._resolve,
            context=self._tls,
            test_recipient=test_recipient,
        )

    def close(self) -> None:
        """Close the idle sessions."""
        self._pool.close()

    def _dial(self) -> Session:
        try:
            addresses = self._resolve(self.options.host, self.options.port)
        except OSError:
            raise Unreachable("the host name does not resolve", stage="connect") from None
        return dial(self.options, self.ports, addresses, self._tls())

    def _tls(self) -> ssl.SSLContext | None:
        """The context, made once: reading the system's authorities costs more than a mail."""
        if self.options.security == "none":
            return None
        with self._lock:
            if self._context is None:
                try:
                    self._context = tls_context(self.options)
                except (OSError, ssl.SSLError):
                    raise ConfigurationError("ca_file: no certificates can be read from it") from None
            return self._context
