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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.charset import Charset
from email.utils import formataddr
from typing import Any, ClassVar, TypeVar

import httpx2
from pydantic import SecretStr

from postier.drivers.base import CheckStep, Driver, Ports
from postier.drivers.egress import Resolver, public_only_resolver
from postier.drivers.http_answers import Answer, Known, crowded, lost, refusal, suppressed
from postier.drivers.http_check import check_steps
from postier.drivers.http_options import ApiOptions, Key
from postier.drivers.http_wire import Call, Dialler, anywhere, transport
from postier.drivers.smtp_words import safe_words
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError, DeliveryError, SenderRefused, TemporaryError

__all__ = ["Answer", "ApiDriver", "ApiOptions", "Key", "Known", "crowded", "hidden", "in_one_line", "suppressed"]

MAX_ANSWER = 65_536  # octets
_UTF8 = Charset("utf-8")

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
        return refusal(answer, self.errors, words, text, code, takes_once=self.takes_once)

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
        if not call.begun:  # connecting raises errors of its own: what is left quotes the request, login and all
            raise SenderRefused("the request holds what HTTP does not allow", stage="http") from None
        words = str(error) if isinstance(error, httpx2.TimeoutException | httpx2.NetworkError) else ""
        words = words or "the server's answer is not HTTP, or it closed the connection"
        if call.broken:
            raise TemporaryError(f"{words}; the request was not whole", stage="http") from None
        raise lost(words, takes_once=takes_once, octets=call.octets) from None


def hidden(email: Email) -> tuple[str, ...]:
    """The recipients that the To header does not show: those of a packet."""
    shown = {mailbox.address for mailbox in email.to}
    return tuple(dict.fromkeys(address for address in email.recipients if address not in shown))


def in_one_line(mailbox: Mailbox) -> str:
    """A mailbox as a header writes it, for providers that take it so. The address must be ASCII."""
    if "=?" in mailbox.name:
        # Left as it is, what somebody typed would be read as an encoded word: as another name, or as a line end.
        return f"{_UTF8.header_encode(mailbox.name)} <{mailbox.address}>"
    return formataddr((mailbox.name, mailbox.address))


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
