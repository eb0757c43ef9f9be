"""The `google` driver: a Gmail or Workspace mailbox over SMTP with OAuth2.

A complete sample account:

    [accounts.office]
    driver = "google"
    sender = { address = "office@school.example", name = "The school" }
    limits = { per_day = 2000, counts = "mails", max_connections = 4, max_recipients = 100 }
    [accounts.office.options]
    mailbox = "office@school.example"             # who sends
    service_account = "file:/run/secrets/google.json"   # the key file of a service account with domain-wide delegation
    # or, for one mailbox and no Workspace administrator:
    # client_id = "....apps.googleusercontent.com"
    # client_secret = "env:GOOGLE_SECRET"
    # refresh_token = "env:GOOGLE_REFRESH"

`GoogleOptions` lists every option. A service account needs domain-wide delegation for https://mail.google.com/ in the
Admin console. Documentation: developers.google.com/identity/protocols/oauth2/service-account,
developers.google.com/gmail/imap/xoauth2-protocol.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace

from postier.drivers.base import CheckStep, Driver, Ports, Result, TokenSource
from postier.drivers.egress import public_only_resolver
from postier.drivers.google_tokens import TOKEN_HOSTS, GoogleLogin, GoogleOptions
from postier.drivers.graph_check import login_step, options_step
from postier.drivers.https_wire import tls_context
from postier.drivers.smtp import SmtpDriver
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.token_http import guarded
from postier.drivers.tokens import FixedToken, MemoryTokenStore
from postier.schemas.account import Limits
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError
from postier.schemas.receipt import Receipt

__all__ = ["DEFAULT_LIMITS", "GoogleDriver", "GoogleOptions"]

# support.google.com/a/answer/166852, of a Workspace mailbox.
DEFAULT_LIMITS = Limits(per_day=2_000, max_connections=4, max_recipients=100)


class GoogleDriver(Driver[GoogleOptions]):
    """Sends as one mailbox. Its tokens are shared through `ports.token_store`."""

    Options = GoogleOptions
    announces_handover = True

    def __init__(self, options: GoogleOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        try:
            guard = self.ports.resolve or public_only_resolver(options.allow_hosts)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        if options.ca_file:
            self._context()
        login = GoogleLogin(options, resolve=guarded(TOKEN_HOSTS, guard), context=self._context)
        self.tokens = login.shared(self.ports.token_store or MemoryTokenStore())
        self._smtp = self._smtp_driver(self.tokens)

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        return self._smtp.send(email)

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Several mails over one session; see SmtpDriver.converse."""
        return self._smtp.converse(emails)

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Options, a token that nobody cached, then the steps of the `smtp` driver."""
        yield options_step([])
        step, token = login_step(self.tokens)
        yield step
        if token is None:
            return
        driver = self._smtp_driver(FixedToken(token))
        try:
            yield from driver.check(test_recipient=test_recipient)
        finally:
            driver.close()

    def idle_connections(self) -> int:
        """Those of the `smtp` driver."""
        return self._smtp.idle_connections()

    def close_idle(self, *, keep: int | None = None) -> None:
        """Close idle sessions; see Driver.close_idle."""
        self._smtp.close_idle(keep=keep)

    def close(self) -> None:
        """Close the idle sessions. Calling twice is safe."""
        self._smtp.close()

    def _smtp_driver(self, tokens: TokenSource) -> SmtpDriver:
        options = self.options
        settings = {
            "host": options.smtp_host,
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
        return SmtpDriver(
            SmtpOptions.model_validate(settings), sender=self.sender, ports=replace(self.ports, tokens=tokens)
        )

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                try:
                    self._tls = tls_context(self.options.ca_file)
                except (OSError, ssl.SSLError):
                    raise ConfigurationError("ca_file: no certificates can be read from it") from None
            return self._tls
