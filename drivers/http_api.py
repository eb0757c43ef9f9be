"""What the drivers over providers' HTTP APIs share: options, the call, and the one place where answers become errors.

A call is one attempt: no retry, no redirect, no cookie, no proxy, HTTP/1.1, one deadline for all of it, and at most
64 kB of answer are read. A driver's table of `Known` rows comes first; then the status decides, then the words.

What an attempt without a clear answer means: nothing had left: Unreachable. The request was not whole: TemporaryError.
It was whole and no answer came, or one that is not the provider's own (a gateway's 502 or 504, a page of HTML):
OutcomeUnknown, or TemporaryError where the provider promises to take a repeated request once.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from postier.drivers.base import CheckStep, Driver, DriverOptions, Ports
from postier.drivers.egress import Resolver, public_only_resolver
from postier.drivers.http_check import check_steps
from postier.drivers.http_wire import Call, Dialler, anywhere, transport
from postier.drivers.replies import ReplyClass, classify
from postier.drivers.smtp_words import safe_words, wished_wait
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
    Unreachable,
)

MAX_ANSWER = 65_536  # octets
_LONGEST_WAIT = 86_400.0  # seconds
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_RESETS = ("retry-after", "x-sib-ratelimit-reset", "x-ratelimit-reset")

Cause = Callable[..., DeliveryError]
suppressed: Cause = partial(RecipientRefused, suppress=True)
crowded: Cause = partial(RateLimited, too_many_recipients=True)


def _one_word(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError("must be one word of ASCII characters (a line end or space copied along?)")
    return value


Key = Annotated[SecretStr, AfterValidator(_one_word)]


class ApiOptions(DriverOptions):
    """How to reach an HTTP API.

    `timeout` is seconds for the whole call, connecting included. `base_url` replaces the provider's own address and
    then passes the egress guard: `https`, or `http` to a loopback host that `allow_hosts` names. `allow_hosts` opens
    the guard, which else lets public hosts through on mail ports alone: a host on 443 must be named there (hosts,
    addresses, networks, each with an optional `:port`). A resolver handed in through the ports goes before it.
    `ca_file` replaces the system's authorities.
    """

    timeout: float = Field(default=30.0, gt=0, le=600)
    base_url: Annotated[str, Field(max_length=500)] | None = None
    allow_hosts: tuple[str, ...] = ()
    ca_file: str | None = None

    @field_validator("base_url")
    @classmethod
    def _base_url_is_an_address_alone(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = bool(parts.hostname) and parts.port != 0 and value.isascii() and value.isprintable()
        except ValueError:
            usable = False
        if not usable or " " in value or parts.scheme not in ("https", "http"):
            raise ValueError("must look like https://host or https://host:port/path")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _clear_text_stays_at_home(self) -> ApiOptions:
        parts = urlsplit(self.base_url or "")
        named = {entry.strip("[]").removesuffix(f":{parts.port}").strip("[]") for entry in self.allow_hosts}
        if parts.scheme == "http" and not (parts.hostname in _LOOPBACK and parts.hostname in named):
            raise ValueError("base_url: must be https (http only to a loopback host that allow_hosts names)")
        return self


class Known(NamedTuple):
    """One answer the provider documents: what is given must match, and says what it means.

    `code` is the provider's own error code, `words` a part of its text, both in lower case.
    """

    cause: Cause
    status: int | None = None
    code: str | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is cut at 64 kB and may be incomplete."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        with suppress(ValueError, RecursionError):
            value = json.loads(self.body)
            if isinstance(value, dict):
                return value
        return {}


ApiOptionsT = TypeVar("ApiOptionsT", bound=ApiOptions)


class ApiDriver(Driver[ApiOptionsT]):
    """Base of the drivers over HTTP. A subclass gives `url`, `errors`, `send` and `probe`.

    `takes_once` says that the provider knows a repeated request by its key, so that a lost answer may be tried again.
    """

    announces_handover = True
    url: ClassVar[str]
    errors: ClassVar[tuple[Known, ...]] = ()
    takes_once: ClassVar[bool] = False

    def __init__(self, options: ApiOptionsT, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        self.base = options.base_url or self._own_url()
        self.dialler = Dialler(self._resolver(), self.ports.clock)
        self._lock = threading.Lock()
        self._transport: httpx2.HTTPTransport | None = None
        self._context: ssl.SSLContext | None = None
        if options.ca_file:
            self.tls_context()

    def probe(self) -> Mapping[str, str]:
        """Ask the provider something harmless that needs the login; what it tells about the account. For `check`."""
        raise NotImplementedError

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Resolve, connect, TLS, login and, when asked for, a test mail; on connections of its own."""
        return check_steps(
            type(self)(self.options, sender=self.sender, ports=self.ports), test_recipient=test_recipient
        )

    def close(self) -> None:
        """Close the idle connections. Calling twice is safe."""
        with self._lock:
            made, self._transport = self._transport, None
        if made is not None:
            made.close()

    # --- for subclasses

    def _own_url(self) -> str:
        return self.url

    def _login(self) -> Mapping[str, str]:
        """The headers that log a request in."""
        raise NotImplementedError

    def _post(self, path: str, body: Mapping[str, Any], email: Email) -> Answer:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return self._call("POST", path, content, "application/json", email=email)

    def _get(self, path: str) -> Answer:
        return self._call("GET", path)

    def _call(
        self, method: str, path: str, content: bytes = b"", kind: str = "", *, email: Email | None = None
    ) -> Answer:
        """One request. Raises what the wire raises and nothing for any status."""
        headers = {"User-Agent": "postier", "Accept": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Content-Type": kind} if kind else {}
        headers |= self._login_for(method, path, content)
        request = httpx2.Request(method, self.base + path, headers=headers, content=content or None)
        call = Call(self.ports.clock() + self.options.timeout, email.handing_over if email else None)
        self.dialler.calls.current = call
        try:
            with _translated(call, takes_once=self.takes_once or email is None):
                response = self._open().handle_request(request)
            try:
                body = _read(response)
            finally:
                response.close()
        finally:
            self.dialler.calls.current = None
        return Answer(response.status_code, response.headers, body)

    def _login_for(self, method: str, path: str, content: bytes) -> Mapping[str, str]:
        return self._login()

    def _refusal(self, answer: Answer, words: str, code: object = None) -> DeliveryError:
        """The error an answer stands for; `words` and `code` are what the provider says, both may be missing."""
        text = self._safe(words) or f"HTTP status {answer.status}"
        lowered = words.lower()
        for known in self.errors:
            if (
                known.status in (None, answer.status)
                and known.code in (None, None if code is None else str(code).lower())
                and known.words in lowered
            ):
                return _build(known.cause, text, answer)
        if 200 <= answer.status <= 299 or answer.status in (502, 504) or (answer.status == 500 and not words):
            return self._unclear(answer, text)
        return _build(_by_status(answer.status, words), text, answer)

    def _unclear(self, answer: Answer, words: str) -> DeliveryError:
        """An answer that does not say whether the mail was taken."""
        return _lost(f"no usable answer: {self._safe(words)}", takes_once=self.takes_once, status=answer.status)

    def _safe(self, words: str) -> str:
        return safe_words(words, self._secrets())

    def _secrets(self) -> list[str]:
        values = (getattr(self.options, name) for name in type(self.options).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]

    # --- inside

    def _resolver(self) -> Resolver:
        if self.options.base_url is None:
            return anywhere
        try:
            return self.ports.resolve or public_only_resolver(self.options.allow_hosts)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def _open(self) -> httpx2.HTTPTransport:
        context = self.tls_context()
        with self._lock:
            if self._transport is None:
                self._transport = transport(self.dialler, context, idle=self.ports.idle_sessions)
            return self._transport

    def tls_context(self) -> ssl.SSLContext:
        """TLS 1.2 or later that verifies chain and name; made once. Raises ConfigurationError for a bad `ca_file`."""
        with self._lock:
            if self._context is None:
                try:
                    self._context = ssl.create_default_context(cafile=self.options.ca_file)
                except OSError:
                    raise ConfigurationError("ca_file: no certificates can be read from it") from None
                self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            return self._context


@contextmanager
def _translated(call: Call, *, takes_once: bool) -> Iterator[None]:
    """Every fault of the wire as one of our errors, by how far the request had come."""
    try:
        yield
    except httpx2.HTTPError as error:
        # LocalProtocolError quotes the request, so only our own wire's words are passed on.
        words = str(error) if isinstance(error, httpx2.TimeoutException | httpx2.NetworkError) else ""
        words = words or "the server's answer is not HTTP, or it closed the connection"
        if not call.begun:
            raise Unreachable(words, stage="connect") from None
        if call.broken:
            raise TemporaryError(f"{words}; the request was not whole", stage="http") from None
        raise _lost(words, takes_once=takes_once, octets=call.octets) from None


def _lost(words: str, *, takes_once: bool, **evidence: int) -> DeliveryError:
    code = evidence.get("status")
    if takes_once:
        return TemporaryError(words, code=code, stage="http")
    return OutcomeUnknown(words, code=code, stage="http", evidence=evidence)


def hidden(email: Email) -> tuple[str, ...]:
    """The recipients that the To header does not show: those of a packet."""
    shown = {mailbox.address for mailbox in email.to}
    return tuple(dict.fromkeys(address for address in email.recipients if address not in shown))


def _read(response: httpx2.Response) -> bytes:
    """At most MAX_ANSWER octets; a break in the middle ends it: the status is known, and decides."""
    body = bytearray()
    with suppress(httpx2.HTTPError):
        assert isinstance(response.stream, httpx2.SyncByteStream)
        for chunk in response.stream:
            body += chunk
            if len(body) >= MAX_ANSWER:
                break
    return bytes(body[:MAX_ANSWER])


def _by_status(status: int, words: str) -> Cause:
    if 300 <= status <= 399:  # not followed: it would carry the login and the mail elsewhere
        return SenderRefused
    return _BY_CLASS[classify(status, None, words, stage="http")]


_BY_CLASS: dict[ReplyClass, Cause] = {
    ReplyClass.SENT: TemporaryError,  # a 2xx where it has no meaning
    ReplyClass.RETRY: TemporaryError,
    ReplyClass.THROTTLE: RateLimited,
    ReplyClass.PERMANENT_RECIPIENT: RecipientRefused,
    ReplyClass.PERMANENT_CONTENT: EmailRefused,
    ReplyClass.CONFIG: SenderRefused,
    ReplyClass.AUTH: AuthenticationFailed,
    ReplyClass.SUPPRESS: suppressed,
}


def _build(cause: Cause, text: str, answer: Answer) -> DeliveryError:
    kind = cause.func if isinstance(cause, partial) else cause
    details: dict[str, Any] = {"code": answer.status, "stage": "http"}
    if isinstance(kind, type) and issubclass(kind, TemporaryError):
        details["retry_after"] = wanted_wait(answer.headers) or wished_wait(text)
    return cause(text, **details)


def wanted_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until the provider wants to be asked again: Retry-After (seconds or a date) or the end of its window."""
    for name in _RESETS:
        value = headers.get(name, "").strip()
        seconds: float | None = None
        with suppress(ValueError):
            seconds = float(value)
        if seconds is None:
            with suppress(ValueError, TypeError):
                seconds = parsedate_to_datetime(value).timestamp()
        if seconds is None or seconds != seconds:
            continue
        if seconds > 1e9:  # a point in time
            seconds -= time.time()
        return min(max(seconds, 0.0), _LONGEST_WAIT)
    return None
