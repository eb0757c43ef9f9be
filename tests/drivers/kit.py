"""A scripted SMTP server for faults, sample mails, and drivers that may reach the loopback."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from postier.drivers.base import Ports, Result
from postier.drivers.smtp import SmtpDriver, SmtpOptions
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import DeliveryError
from tests.conftest import PATIENCE

SENDER = Mailbox("office@example.org", "The office")
PIPELINING = ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME")
LOCK_STEP = ("8BITMIME",)


def mail(number: int = 1, *recipients: str, body: bytes = b"Hello.\r\n", **changes: Any) -> Email:
    email = Email(
        delivery_id=f"d{number}",
        message_id=f"<{number}@example.org>",
        envelope_from="bounces@example.org",
        recipients=recipients or ("someone@example.com",),
        sender=SENDER,
        to=(Mailbox("someone@example.com"),),
        subject="Sample",
        text="Hello.",
        html="<p>Hello.</p>",
        mime=b"Subject: Sample %d\r\nMessage-ID: <%d@example.org>\r\n\r\n" % (number, number) + body,
    )
    return replace(email, **changes)


def driver_for(port: int, *, ports: Ports | None = None, **options: Any) -> SmtpDriver:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "allow_hosts": ("127.0.0.1", "localhost"),
        "timeout_ms": int(PATIENCE * 1_000),
        "total_deadline": 2 * PATIENCE,
        "final_timeout": PATIENCE,
    }
    return SmtpDriver(SmtpOptions.model_validate(settings | options), sender=SENDER, ports=ports)


@contextlib.contextmanager
def opened(port: int, **options: Any) -> Iterator[SmtpDriver]:
    driver = driver_for(port, **options)
    try:
        yield driver
    finally:
        driver.close()


def failure(driver: SmtpDriver, email: Email) -> DeliveryError:
    """The error `send` ends with; a receipt fails the test."""
    ((_, result),) = driver.converse((email,))
    assert isinstance(result, DeliveryError), result
    return result


def results(driver: SmtpDriver, *emails: Email) -> list[Result]:
    return [result for _, result in driver.converse(iter(emails))]


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.002)


class Gone(Exception):
    """The client left, or the script is over."""


@dataclass
class Peer:
    """One connection, as the server sees it."""

    server: ScriptedServer
    sock: socket.socket
    number: int
    held: bytes = b""
    last_body: bytes = b""

    def say(self, *lines: str) -> None:
        self.raw("".join(f"{line}\r\n" for line in lines).encode())

    def raw(self, octets: bytes) -> None:
        try:
            self.sock.sendall(octets)
        except OSError:
            raise Gone from None

    def line(self) -> str:
        return self._until(b"\r\n").decode("utf-8")

    def body(self) -> bytes:
        """The body as it came, still stuffed, without the final dot."""
        while len(self.held) < 3:
            self._receive()
        if self.held.startswith(b".\r\n"):
            self.held = self.held[3:]
            return b""
        octets = self._until(b"\r\n.\r\n") + b"\r\n"
        self.server.bodies.append(octets)
        return octets

    def read(self, size: int) -> bytes:
        while len(self.held) < size:
            self._receive()
        taken, self.held = self.held[:size], self.held[size:]
        return taken

    def wait_until_gone(self) -> None:
        while True:
            self._receive()
            self.held = b""

    def reset(self) -> None:
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise Gone

    def leave(self) -> None:
        raise Gone

    def _until(self, mark: bytes) -> bytes:
        while (end := self.held.find(mark)) < 0:
            self._receive()
        taken, self.held = self.held[:end], self.held[end + len(mark) :]
        return taken

    def _receive(self) -> None:
        try:
            octets = self.sock.recv(65_536)
        except OSError:
            raise Gone from None
        if not octets:
            raise Gone
        self.held += octets


Script = Callable[[Peer], None]
Answer = str | Callable[[Peer, str], str | None]


def polite(
    *, banner: str = "220 scripted ESMTP", extensions: tuple[str, ...] = PIPELINING, **answers: Answer
) -> Callable[[Peer], None]:
    """A server that takes everything, but for the `answers` given by verb; DOT is the one to a body."""

    def serve(peer: Peer) -> None:
        peer.say(banner)
        while True:
            line = peer.line()
            peer.server.lines.append(line)
            verb = line[:4].upper().strip()
            if verb == "EHLO" and "EHLO" not in answers:
                words = ["scripted", *extensions]
                peer.say(*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}")
                continue
            reply = _answer(peer, verb, line, answers)
            if reply is not None:
                peer.say(*reply.split("\n"))
            if reply and reply.startswith("354"):
                peer.last_body = peer.body()
                reply = _answer(peer, "DOT", line, answers)
                if reply is not None:
                    peer.say(*reply.split("\n"))
            if verb == "QUIT" or (reply and reply.startswith("421")):
                return

    return serve


_USUAL = {"DATA": "354 go on", "DOT": "250 2.0.0 Ok: queued as 4XyZ12345", "QUIT": "221 bye"}


def _answer(peer: Peer, verb: str, line: str, answers: dict[str, Answer]) -> str | None:
    answer = answers.get(verb, _USUAL.get(verb, "250 2.1.0 Ok"))
    return answer if isinstance(answer, str) else answer(peer, line)


def nth(*answers: str, then: str) -> Callable[[Peer, str], str]:
    """Another answer each time it is asked for, over all connections."""
    left = list(answers)

    def answer(peer: Peer, line: str) -> str:
        return left.pop(0) if left else then

    return answer


class ScriptedServer:
    """Plays a script to every connection, each in its own thread.

    A context manager that leaves nothing running; behind it everything that came is in `lines`, `bodies` and
    `connections`, those included that left before the server got round to them.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.lines: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self.failures: list[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._last: Any = None  # who connects from there comes to end the server
        self._peers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> ScriptedServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(self._listener.getsockname())
            self._threads[0].join(PATIENCE)
        self._listener.close()
        for sock in self._peers:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in self._peers:
            sock.close()
        if self.failures:
            raise AssertionError("the scripted server failed") from self.failures[0]

    def verbs(self) -> list[str]:
        return [line[:4].upper().strip() for line in self.lines]

    def _accept(self) -> None:
        while True:
            sock, address = self._listener.accept()
            if address == self._last:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._peers.append(sock)
            thread = threading.Thread(target=self._play, args=(sock, self.connections))
            self._threads.append(thread)
            thread.start()

    def _play(self, sock: socket.socket, number: int) -> None:
        try:
            self.script(Peer(self, sock, number))
        except Gone:
            pass
        except BaseException as failed:
            self.failures.append(failed)
        finally:
            sock.close()
            self.ended += 1
