"""One HTTPS request with a hard deadline and a hard size, told apart by whether the body may have been taken.

`http.client` builds and parses; connecting, TLS and every read are ours, because its time limits start anew with each
octet. Proxies, redirects, cookies and environment variables play no part. Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from postier.drivers.certificates import certificate_cause
from postier.schemas.errors import NarrowCause

Resolve = Callable[[str, int], list[tuple[str, int]]]
_MOST_ADDRESSES = 4


class NotSent(Exception):
    """The server never had the whole request. The text is for people; `certificate` says what TLS had against it."""

    def __init__(self, reason: str, *, certificate: NarrowCause | None = None) -> None:
        super().__init__(reason)
        self.certificate = certificate


class NoAnswer(Exception):
    """The whole request was handed over and no usable answer came; `octets` of body went out."""

    def __init__(self, reason: str, octets: int) -> None:
        super().__init__(reason)
        self.octets = octets


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, and the body; `whole` is False when it was cut or too long."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    whole: bool = True

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks for; None without that header or when it holds a date."""
        value = self.headers.get("retry-after", "").strip()
        return min(float(value), 86_400.0) if value.isascii() and value.isdigit() and len(value) < 10 else None


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for the request up to its last octet, octets of answer, and seconds for the answer.

    Without `answer_seconds` the answer shares the seconds of the request.
    """

    seconds: float
    octets: int
    answer_seconds: float | None = None


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later that verifies chain and name; `ca_file` replaces the system's authorities."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def system_resolver(host: str, port: int) -> list[tuple[str, int]]:
    """Every address of a host we trust by name. Raises NotSent."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotSent("the host name does not resolve") from None
    return [(str(row[4][0]), port) for row in rows]


def exchange(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes = b"",
    limits: Limits,
    resolve: Resolve,
    context: ssl.SSLContext | None,
    before_body: Callable[[], None] | None = None,
) -> Answer:
    """Make one request on a connection of its own. Raises NotSent or NoAnswer; whatever `before_body` raises passes.

    `before_body` is called when everything but the body is on its way. `context` None allows plain http.
    """
    address = urlsplit(url)
    host, secure = address.hostname or "", address.scheme == "https"
    if not host or (not secure and context is not None):
        raise NotSent("the address is not an https URL")
    port = address.port or (443 if secure else 80)
    wire = _Wire(time.monotonic() + limits.seconds, limits.octets + 32_768)
    connection = http.client.HTTPConnection(host, port)
    try:
        wire.connect(resolve(host, port))
        if secure and context is not None:
            wire.encrypt(context, host)
        connection.sock = cast(Any, wire)
        try:
            path = address.path or "/"
            connection.putrequest(
                method, f"{path}?{address.query}" if address.query else path, skip_accept_encoding=True
            )
            for name, value in headers.items():
                connection.putheader(name, value)
            if body or method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Connection", "close")
            connection.endheaders()
        except (OSError, http.client.HTTPException) as error:
            raise NotSent(_reason(error)) from None
        if before_body is not None:
            before_body()
        return _finish(connection, wire, body, limits)
    finally:
        connection.close()
        wire.drop()


def _finish(connection: http.client.HTTPConnection, wire: _Wire, body: bytes, limits: Limits) -> Answer:
    """Hand the body over and read the answer."""
    cut: OSError | None = None
    try:
        if body:
            wire.sendall(body)
    except OSError as error:
        cut = error  # a server that refuses a long body may say why before it closes
    if cut is not None:
        wire.deadline = time.monotonic() + 1.0
    elif limits.answer_seconds is not None:
        wire.deadline = time.monotonic() + limits.answer_seconds
    try:
        response = connection.getresponse()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if cut is not None:
            raise NotSent(_reason(cut)) from None
        raise NoAnswer(_reason(error), len(body)) from None
    with response:
        whole = True
        try:
            content = response.read(limits.octets + 1)
        except http.client.IncompleteRead as error:
            content, whole = error.partial, False
        except (OSError, http.client.HTTPException, ValueError):
            content, whole = b"", False
        if len(content) > limits.octets:
            content, whole = b"", False
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, content, whole and not response.length)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "the connection was lost"
    if isinstance(error, _TooMuch):
        return "the answer is too long"
    return "the answer is not HTTP" if isinstance(error, http.client.HTTPException) else "the connection failed"


class _TooMuch(OSError):
    pass


class _Wire:
    """What `http.client` takes for its socket: every wait ends at one deadline, every octet counts against one cap."""

    def __init__(self, deadline: float, octets: int) -> None:
        self.deadline = deadline
        self._left = octets
        self._sock: socket.socket | None = None

    def connect(self, addresses: list[tuple[str, int]]) -> None:
        reason = "no address to connect to"
        for address, port in addresses[:_MOST_ADDRESSES]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError:  # this machine speaks no IPv6
                continue
            try:
                sock.settimeout(self._time_left())
                sock.connect((address, port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                reason = "no answer in time" if isinstance(error, TimeoutError) else "no connection"
                continue
            self._sock = sock
            return
        raise NotSent(f"cannot connect: {reason}")

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        assert self._sock is not None
        try:
            self._sock.settimeout(self._time_left())
            self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            text = f"certificate: {error.verify_message}"
            raise NotSent(text, certificate=certificate_cause(error)) from None
        except (OSError, ValueError) as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else "the handshake failed"
            raise NotSent(f"no TLS: {reason}") from None

    def sendall(self, octets: bytes) -> None:
        assert self._sock is not None
        rest = memoryview(octets)
        while rest:
            self._sock.settimeout(self._time_left())
            rest = rest[self._sock.send(rest[:65_536]) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def receive_into(self, buffer: memoryview) -> int:
        if self._sock is None:
            raise ConnectionAbortedError
        if self._left <= 0:
            raise _TooMuch
        self._sock.settimeout(self._time_left())
        try:
            count = self._sock.recv_into(buffer[: self._left])
        except ssl.SSLEOFError:
            return 0
        self._left -= count
        return count

    def close(self) -> None:
        """`http.client` closes as soon as it has the headers; what is left to read needs the socket."""

    def drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _time_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Reader(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive_into(memoryview(buffer))
