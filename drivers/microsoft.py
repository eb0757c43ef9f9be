"""The `microsoft` driver: a Microsoft 365 mailbox, through Graph or over SMTP with OAuth2.

A complete sample account:

    [accounts.office]
    driver = "microsoft"
    sender = { address = "office@contoso.example", name = "The office" }
    limits = { per_minute = 30, per_day = 10000, counts = "recipients", max_connections = 4 }
    [accounts.office.options]
    mailbox = "office@contoso.example"          # who sends
    tenant_id = "11111111-2222-3333-4444-555555555555"
    client_id = "66666666-7777-8888-9999-000000000000"
    client_secret = "env:OFFICE_SECRET"         # or private_key + certificate, managed_identity, delegated = true
    secret_expires_on = "2027-05-31"            # warned 30 days ahead
    mode = "graph"                              # graph | smtp
    authority = "public"                        # public | usgov | china

`postier.drivers.microsoft_options.MicrosoftOptions` lists every option. The app needs the application permission
Mail.Send (Graph) or SMTP.SendAsApp (SMTP; then also a service principal in Exchange made with the object id of the
enterprise application, and rights on the mailbox), or the delegated Mail.Send or SMTP.Send.

Documentation: learn.microsoft.com/graph/api/user-sendmail, learn.microsoft.com/exchange/client-developer/
legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from postier.drivers.base import CheckStep, Driver, Ports, Result, TokenSource
from postier.drivers.egress import public_only_resolver
from postier.drivers.graph import GraphSender
from postier.drivers.graph_check import graph_steps, login_step, options_step
from postier.drivers.https_wire import tls_context
from postier.drivers.microsoft_options import MicrosoftOptions, known_hosts
from postier.drivers.microsoft_tokens import DeviceLogin, EntraLogin
from postier.drivers.smtp import SmtpDriver
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.token_http import guarded
from postier.drivers.tokens import FixedToken, MemoryTokenStore
from postier.schemas.account import Limits
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError
from postier.schemas.receipt import Receipt

__all__ = ["DEFAULT_LIMITS", "MicrosoftDriver", "MicrosoftOptions"]

# learn.microsoft.com/graph/throttling-limits and learn.microsoft.com/exchange/troubleshoot/send-emails/
# smtp-submission-improvements, of one mailbox. Over SMTP it takes three connections; leave one to others.
DEFAULT_LIMITS = Limits(per_minute=30, per_day=10_000, counts="recipients", max_connections=4, max_recipients=500)
SMTP_DEFAULT_LIMITS = DEFAULT_LIMITS.model_copy(update={"max_connections": 2})


class MicrosoftDriver(Driver[MicrosoftOptions]):
    """Sends as one mailbox. Its tokens are shared through `ports.token_store`."""

    Options = MicrosoftOptions
    announces_handover = True

    @classmethod
    def default_limits(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """One mailbox's limits, by the way it sends."""
        limits = SMTP_DEFAULT_LIMITS if options.get("mode") == "smtp" else DEFAULT_LIMITS
        return limits.model_dump(exclude_unset=True)

    def __init__(self, options: MicrosoftOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        try:
            guard = self.ports.resolve or public_only_resolver(options.allow_hosts)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._resolve = guarded(known_hosts(), guard)
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        if options.ca_file:
            self._context()
        self._login = EntraLogin(options, resolve=self._resolve, context=self._context)
        self.tokens = self._login.shared(self.ports.token_store or MemoryTokenStore())
        self._graph = GraphSender(
            options.cloud.graph,
            options.mailbox,
            tokens=self.tokens,
            resolve=self._resolve,
            context=self._context,
            seconds=options.timeout_ms / 1000,
            answer_seconds=options.final_timeout,
        )
        self._smtp = self._smtp_driver(self.tokens) if options.mode == "smtp" else None

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        return self._smtp.send(email) if self._smtp else self._graph.send(email)

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Several mails: over one session by SMTP, one request each by Graph."""
        return self._smtp.converse(emails) if self._smtp else super().converse(emails)

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Options, a token that nobody cached, then Graph or SMTP step by step and, when asked for, a test mail."""
        yield options_step(self.warnings())
        step, token = login_step(self.tokens)
        yield step
        if token is None:
            return
        if self.options.mode == "graph":
            yield from graph_steps(self._graph, token, sender=self.sender, test_recipient=test_recipient)
            return
        driver = self._smtp_driver(FixedToken(token))
        try:
            yield from driver.check(test_recipient=test_recipient)
        finally:
            driver.close()

    def warnings(self, today: date | None = None) -> list[str]:
        """Sentences for a person about a secret or certificate that ends within 30 days."""
        return self.options.warnings(today)

    def device_login(self, *, clock: Callable[[], float] = time.time) -> DeviceLogin:
        """A person's login, kept in the token store. Raises ConfigurationError unless the account is delegated.

        `clock` is seconds since 1970.
        """
        if not self.options.delegated:
            raise ConfigurationError("delegated: not set: this account logs in as an app, no person is needed")
        return DeviceLogin(self._login, self.tokens, clock)

    def idle_connections(self) -> int:
        """Those of SMTP; Graph's are requests."""
        return self._smtp.idle_connections() if self._smtp else 0

    def close_idle(self, *, keep: int | None = None) -> None:
        """Close idle SMTP sessions; see Driver.close_idle."""
        if self._smtp:
            self._smtp.close_idle(keep=keep)

    def close(self) -> None:
        """Close idle SMTP sessions. Calling twice is safe."""
        if self._smtp:
            self._smtp.close()

    def _smtp_driver(self, tokens: TokenSource) -> SmtpDriver:
        options = self.options
        settings = {
            "host": options.cloud.smtp_host,
            "port": options.smtp_port,
            "security": options.smtp_security,
            "auth": "xoauth2",
            "username": options.mailbox,
            "allow_plain_login": options.smtp_security == "none",
            "timeout_ms": options.timeout_ms,
            "final_timeout": options.final_timeout,
            "envelope_from": options.envelope_from,
            "ca_file": options.ca_file,
            "allow_hosts": options.allow_hosts,
        }
        ports = replace(self.ports, tokens=tokens)
        return SmtpDriver(SmtpOptions.model_validate(settings), sender=self.sender, ports=ports)

    def _context(self) -> ssl.SSLContext:
        """The context, made once: reading the system's authorities costs more than a mail."""
        with self._lock:
            if self._tls is None:
                try:
                    self._tls = tls_context(self.options.ca_file)
                except (OSError, ssl.SSLError):
                    raise ConfigurationError("ca_file: no certificates can be read from it") from None
            return self._tls
