r"""The `exchange` driver: a mailbox of an Exchange server of one's own, through EWS. Needs `postier[exchange]`.

A complete sample account:

    [accounts.office]
    driver = "exchange"
    sender = { address = "office@contoso.example", name = "The office" }
    [accounts.office.options]
    url = "https://mail.contoso.example/EWS/Exchange.asmx"
    username = 'CONTOSO\svc-mail'               # DOMAIN\user or user@domain
    password = "env:OFFICE_PASSWORD"
    mailbox = "office@contoso.example"          # the primary address of the mailbox that sends
    auth = "ntlm"                               # ntlm | basic
    access = "delegate"                         # delegate (own or shared mailbox) | impersonation
    save_copy = false                           # a copy in Sent Items
    version = "Exchange2013_SP1"                # never guessed: Exchange2010_SP2 to Exchange2016
    timeout_ms = 30000                          # to hand a mail over
    final_timeout = 120.0                       # seconds for the verdict
    idle_seconds = 20.0

`postier.drivers.exchange_options.ExchangeOptions` lists every option. A server inside the network is let through by
POSTIER_EGRESS_ALLOW, or by `allow_hosts` of an account from the accounts file.

exchangelib writes the requests and pyspnego, which comes with it, proves the login; exchangelib's own transport is not
used: in 5.6.0 it sends the mail three times to log in by NTLM, sends one that met a fault again in every version of the
schema, does not tell a connection lost before the mail from one lost after it, keeps connections in a cache of the
process, times each octet but not all of them, and logs a failed request whole.

CreateItem takes the MIME: Message-ID, Reply-To, List-Unsubscribe and the rest leave as they are. EWS answers when the
mail is in Exchange's queue: accepted, not delivered.
"""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from postier.drivers.base import CheckStep, Driver, Ports
from postier.drivers.egress import public_only_resolver
from postier.drivers.exchange_errors import ADVICE, EXCHANGE_ERRORS
from postier.drivers.exchange_options import ExchangeOptions
from postier.drivers.http_answers import Answer, refusal
from postier.drivers.http_check import Step, check_steps
from postier.drivers.http_wire import Call, Dialler
from postier.drivers.https_wire import tls_context
from postier.drivers.session_pool import SessionPool
from postier.drivers.smtp_mail import clean
from postier.drivers.smtp_options import SAFE_ADDRESS
from postier.drivers.smtp_words import safe_words
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DeliveryError,
    EmailRefused,
    RecipientRefused,
    TemporaryError,
)
from postier.schemas.receipt import Receipt

if TYPE_CHECKING:
    from postier.drivers.exchange_soap import Requests, Told
    from postier.drivers.exchange_wire import EwsSession

__all__ = ["ExchangeDriver", "ExchangeOptions"]

_EXTRA = frozenset({"exchangelib", "spnego", "defusedxml"})
_MOST_MAILS = 100  # on one connection


class ExchangeDriver(Driver[ExchangeOptions]):
    """Sends as one mailbox. Safe for threads; keeps idle connections that are logged in."""

    Options = ExchangeOptions
    announces_handover = True

    @classmethod
    def default_limits(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG003
        """What Exchange's default throttling policy and recipient limit leave room for."""
        return {"max_connections": 4, "max_recipients": 500}

    def __init__(self, options: ExchangeOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        self._requests, self._session_type, self._told = _parts(options)
        try:
            resolve = self.ports.resolve or public_only_resolver(options.allow_hosts)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self.base = options.url
        self.dialler = Dialler(resolve, self.ports.clock)
        self._pool: SessionPool[EwsSession] = SessionPool(
            size=self.ports.idle_sessions,
            idle_seconds=options.idle_seconds,
            max_mails=_MOST_MAILS,
            clock=self.ports.clock,
        )
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        if options.ca_file:
            self.tls_context()

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        if not email.recipients or not all(map(SAFE_ADDRESS.fullmatch, email.recipients)):
            raise RecipientRefused("a recipient is not an address", stage="http")
        if not email.wire_safe and not clean(email.mime):
            raise EmailRefused("the mail has a bare line end or a NUL", stage="http")
        answer = self._ask(self._requests.create(email), email)
        said = self._told(answer.body)
        if answer.status != 200 or not said.done:
            raise self._refused(answer, said)
        return Receipt(provider_id=_plain(answer.headers.get("request-id")), status="queued", code=200)

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Resolve, connect, TLS, login, the mailbox and, when asked for, a test mail; on connections of its own."""
        driver = type(self)(self.options, sender=self.sender, ports=self.ports)
        return check_steps(
            driver, test_recipient=test_recipient, more=(("sender", driver.open_mailbox),), advise=_advice
        )

    def probe(self) -> Mapping[str, str]:
        """Log in; whatever EWS then says of the mailbox."""
        answer = self._ask(self._requests.look(), None)
        said = self._told(answer.body)
        if not said.code or said.code in ("ErrorPasswordExpired", "ErrorPasswordChangeRequired"):
            raise self._refused(answer, said)
        return {"login": self.options.auth}

    def open_mailbox(self) -> tuple[str, Mapping[str, str]]:
        """Whether the mailbox is there and the login may use it. Raises what EWS says against it."""
        answer = self._ask(self._requests.look(), None)
        said = self._told(answer.body)
        if not said.done:
            raise self._refused(answer, said)
        return "", {"access": self.options.access, "version": self.options.version}

    def close(self) -> None:
        """Close the idle connections. Calling twice is safe."""
        self._pool.close()

    def tls_context(self) -> ssl.SSLContext:
        """TLS 1.2 or later that verifies chain and name; made once. Raises ConfigurationError for a bad `ca_file`."""
        with self._lock:
            if self._context is None:
                try:
                    self._context = tls_context(self.options.ca_file)
                except (OSError, ssl.SSLError):
                    raise ConfigurationError("ca_file: no certificates can be read from it") from None
            return self._context

    def _ask(self, body: bytes, email: Email | None) -> Answer:
        """One request, on an idle connection or a new one.

        A connection's login that has run out is renewed once: EWS took nothing. A Basic login that is refused is not
        tried twice: it would count twice against the account's lock-out.
        """
        announce = email.handing_over if email else None
        until = self.ports.clock() + self.options.timeout_ms / 1000
        session = self._pool.take()
        if session is not None:
            call = self._call(until, announce)
            answer = self._used(session, lambda held: held.ask(body, call))
            if answer.status != 401 or self.options.auth == "basic":
                return answer
            announce = None
        fresh = self._session_type(self.options, self.dialler, self.tls_context())
        with self.ports.logins():
            return self._used(fresh, lambda held: held.first(body, self._call(until, announce)))

    def _call(self, until: float, announce: Callable[[], None] | None) -> Call:
        return Call(until, announce, answer_seconds=self.options.final_timeout)

    def _used(self, session: EwsSession, work: Callable[[EwsSession], Answer]) -> Answer:
        try:
            answer = work(session)
        except BaseException:
            session.drop()
            raise
        if answer.status == 401:
            session.drop()
        else:
            self._pool.give_back(session)
        return answer

    def _refused(self, answer: Answer, said: Told) -> DeliveryError:
        code = safe_words(said.code)[:80]
        words = safe_words(said.text, self._secrets())
        text = ": ".join(part for part in (code, words) if part) or f"HTTP status {answer.status}"
        headers = dict(answer.headers)
        if said.back_off is not None:
            headers["retry-after"] = str(said.back_off)
        known = any(row.code == code.lower() for row in EXCHANGE_ERRORS)
        if code.startswith("Error") and not known:
            return TemporaryError(text, code=answer.status, stage="http")
        counted = Answer(answer.status, headers, answer.body)
        return refusal(counted, EXCHANGE_ERRORS, words, text, code or None, takes_once=False)

    def _secrets(self) -> list[str]:
        password = self.options.password.get_secret_value()
        return [password, base64.b64encode(f"{self.options.username}:{password}".encode()).decode()]


def _parts(options: ExchangeOptions) -> tuple[Requests, type[EwsSession], Callable[[bytes], Told]]:
    """What needs the extra's packages. Raises ConfigurationError that says how to get them."""
    try:
        from postier.drivers.exchange_soap import Requests, told
        from postier.drivers.exchange_wire import EwsSession
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        raise ConfigurationError("driver: 'exchange' needs more packages: pip install 'postier[exchange]'") from None
    return Requests(options), EwsSession, told


def _advice(step: Step, error: DeliveryError | ConfigurationError) -> str:
    text = str(error)
    if text.startswith("certificate: "):
        return "Check that url names the server as its certificate does; set ca_file if the authority is your own."
    if isinstance(error, DeliveryError) and error.code is not None and 300 <= error.code <= 399:
        return "The address redirects, so EWS is elsewhere: set url to where it answers itself."
    if "does not offer the login" in text:
        return "Set auth to what the server offers, or have it switched on for the EWS virtual directory."
    known = ADVICE.get(text.partition(":")[0])
    if known is not None:
        return known
    if step == "login" and not isinstance(error, AuthenticationFailed):
        return "Check url, and that EWS is switched on for the login's mailbox and for this kind of client."
    return _BY_STEP[step]


_BY_STEP: dict[Step, str] = {
    "resolve": "Check url and the name server; a server inside the network must be named in POSTIER_EGRESS_ALLOW.",
    "connect": "Check url, and that a firewall lets HTTPS through to this server.",
    "tls": "Check that the server speaks TLS 1.2 on this port.",
    "login": "Check username (DOMAIN\\user or user@domain), password and lock-out; where a proxy ends TLS, Extended "
    "Protection refuses NTLM.",
    "sender": "Check mailbox and access, and the login's rights on it.",
    "test_mail": "Check that the login may send as the sender's address, and read Exchange's words.",
}


def _plain(value: str | None) -> str | None:
    return value[:100] if value and value.isascii() and value.isprintable() else None
