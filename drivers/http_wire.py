"""The wire under the HTTP drivers: guarded addresses, one deadline a call, and knowledge of what has left.

httpx2 times each read and write alone, so a server that sends an octet a second would hold a thread for hours, and it
does not tell whether a request was whole when the connection broke. Both decide an outcome, so they are kept here.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2
import httpx2

from postier.drivers.certificates import certificate_cause
from postier.drivers.egress import Resolver
from postier.schemas.errors import AccountError, Unreachable

CONNECT_SECONDS = 10.0  # for all addresses of a host together
_MOST_ADDRESSES = 4
_KEEP_IDLE = 20.0  # seconds: load balancers drop idle connections after 60 or less


class Call:
    """One request in progress: when it must end and how far it came.

    `begun` once the first octet of the request was about to leave, `broken` when a write failed, so that the server
    cannot have the whole request. `octets` counts what the kernel took. With `answer_seconds` the answer has a time of
    its own, from the request's last octet on.
    """

    def __init__(
        self, deadline: float, handing_over: Callable[[], None] | None = None, *, answer_seconds: float | None = None
    ) -> None:
        self.deadline = deadline
        self._answer_seconds = answer_seconds
        self.begun = False
        self.broken = False
        self.octets = 0
        self._handing_over = handing_over

    def begin(self) -> None:
        """Announce the handover, once; its error passes through before anything has left."""
        if not self.begun:
            if self._handing_over is not None:
                self._handing_over()
            self.begun = True

    def await_answer(self, now: float) -> None:
        """The request has left as far as it can: what is waited for now is the answer."""
        if self._answer_seconds is not None and not self.broken:
            self.deadline = now + self._answer_seconds
        self._answer_seconds = None


class Calls(threading.local):
    """The call of each thread: httpx2 works in the thread that asks."""

    current: Call | None = None


class Dialler(httpcore2.NetworkBackend):
    """Opens connections to the addresses that `resolve` lets through, and to no others."""

    def __init__(self, resolve: Resolver, clock: Callable[[], float]) -> None:
        self.resolve = resolve
        self.clock = clock
        self.calls = Calls()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        """A connected stream. Raises Unreachable, or what the resolver raises."""
        return self.connect(self.resolve(host, port))

    def connect(self, addresses: list[tuple[str, int]]) -> Stream:
        """Try the addresses in turn within CONNECT_SECONDS. Raises Unreachable."""
        until = self.clock() + CONNECT_SECONDS
        if self.calls.current is not None:
            until = min(until, self.calls.current.deadline)
        reason = "no address"
        for address in addresses[:_MOST_ADDRESSES]:
            left = until - self.clock()
            if left <= 0:
                break
            try:
                sock = socket.create_connection(address, left)
            except OSError as error:
                reason = (error.strerror or "it does not answer in time").lower()
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Stream(sock, self.calls, self.clock)
        raise Unreachable(f"the provider's API cannot be reached: {reason}", stage="connect")


class Stream(httpcore2.NetworkStream):
    """One connection, in clear or over TLS."""

    def __init__(self, sock: socket.socket, calls: Calls, clock: Callable[[], float]) -> None:
        self.sock = sock
        self._calls = calls
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises ReadTimeout at the call's deadline, ReadError when the connection broke."""
        if self._calls.current is not None:
            self._calls.current.await_answer(self._clock())
        try:
            self.sock.settimeout(self._left(timeout))
            return self.sock.recv(max_bytes)
        except TimeoutError:
            raise httpcore2.ReadTimeout("no complete answer in time") from None
        except OSError as error:
            raise httpcore2.ReadError(_reason(error)) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raises WriteTimeout or WriteError; the server then never has the whole request."""
        call = self._calls.current
        if call is not None:
            call.begin()
        view = memoryview(buffer)
        try:
            while view:
                self.sock.settimeout(self._left(timeout))
                sent = self.sock.send(view)
                view = view[sent:]
                if call is not None:
                    call.octets += sent
        except OSError as error:
            if call is not None:
                call.broken = True
            if isinstance(error, TimeoutError):
                raise httpcore2.WriteTimeout("the server stopped taking the request") from None
            raise httpcore2.WriteError(_reason(error)) from None

    def close(self) -> None:
        """Close at once. Calling twice is safe."""
        self.sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """The same connection over TLS. Raises AccountError for a wrong certificate, else Unreachable."""
        try:
            self.sock.settimeout(min(self._left(timeout), CONNECT_SECONDS))
            sock = ssl_context.wrap_socket(self.sock, server_hostname=server_hostname)
        except ssl.SSLCertVerificationError as error:
            self.close()
            text = f"certificate: {error.verify_message[:200]}"
            raise AccountError(text, stage="connect", cause=certificate_cause(error)) from None
        except OSError:
            self.close()
            raise Unreachable("the TLS handshake with the provider's API failed", stage="connect") from None
        return Stream(sock, self._calls, self._clock)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore2 asks: `ssl_object`, `socket`, and `is_readable` to notice a connection that was closed."""
        if info == "ssl_object":
            return self.sock if isinstance(self.sock, ssl.SSLSocket) else None
        if info == "socket":
            return self.sock
        if info == "is_readable":
            return self._is_readable()
        return None

    def _is_readable(self) -> bool:
        if self.sock.fileno() < 0:
            return True
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(0))

    def _left(self, timeout: float | None) -> float:
        call = self._calls.current
        left = CONNECT_SECONDS if call is None else call.deadline - self._clock()
        if timeout is not None:
            left = min(left, timeout)
        if left <= 0:
            raise TimeoutError
        return left


def transport(dialler: Dialler, context: ssl.SSLContext, *, idle: int) -> httpx2.HTTPTransport:
    """An httpx2 transport over `dialler`: HTTP/1.1, no proxy, no retries, at most `idle` kept connections."""
    made = httpx2.HTTPTransport(verify=context, trust_env=False)
    # httpx2 has no parameter for the network underneath; httpcore2, which it is a face of, has.
    made._pool = httpcore2.ConnectionPool(
        ssl_context=context,
        max_connections=None,
        max_keepalive_connections=idle,
        keepalive_expiry=_KEEP_IDLE,
        network_backend=dialler,
    )
    return made


def anywhere(host: str, port: int) -> list[tuple[str, int]]:
    """Resolve a provider's own host. Raises Unreachable."""
    with contextlib.suppress(OSError, UnicodeError):
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys((str(row[4][0]), int(row[4][1])) for row in rows))
    raise Unreachable("the host name of the provider's API does not resolve", stage="connect")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "the TLS connection broke"
    return (error.strerror or "the connection broke").lower()
