"""SMTP servers that misbehave as they are told, and their logs: what came complete, when, and what was answered."""

from __future__ import annotations

import contextlib
import itertools
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<([^@>]+)@")
OK = "250 2.0.0 Ok: queued"
_USUAL = {"BANNER": "220 faulty ESMTP", "DATA": "354 go on", "DOT": OK, "QUIT": "221 bye"}

Answer = str | Callable[["Peer", str], "str | None"]


class Gone(Exception):
    """The client left, or the server is done with it."""


@dataclass
class Taken:
    """One complete body: when (seconds since 1970), the delivery id in it, to whom, and the answer ('' for none)."""

    at: float
    id: str
    recipients: tuple[str, ...]
    reply: str = ""
    answered_at: float = 0.0

    @property
    def is_copy(self) -> bool:
        """Whether the server has it: it said yes, or nothing at all."""
        return self.reply[:1] in ("2", "")


@dataclass
class Peer:
    """One connection, as the server sees it."""

    server: Server
    sock: socket.socket
    number: int
    held: bytes = b""
    recipients: list[str] = field(default_factory=list)
    mails: int = 0
    last: Taken | None = None

    def say(self, text: str) -> None:
        self.raw("".join(f"{line}\r\n" for line in text.split("\n")).encode())

    def raw(self, octets: bytes) -> None:
        try:
            self.sock.sendall(octets)
        except OSError:
            raise Gone from None

    def until(self, mark: bytes) -> bytes:
        while (end := self.held.find(mark)) < 0:
            self.receive()
        taken, self.held = self.held[:end], self.held[end + len(mark) :]
        return taken

    def receive(self) -> None:
        try:
            octets = self.sock.recv(65_536)
        except (OSError, ValueError):
            raise Gone from None
        if not octets:
            raise Gone
        self.held += octets

    def wait_until_gone(self) -> None:
        while True:
            self.receive()

    def reset(self) -> None:
        """Close with a RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
        raise Gone

    def leave(self) -> None:
        """Close with a FIN."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        raise Gone

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Go on in TLS."""
        try:
            self.sock = context.wrap_socket(self.sock, server_side=True)
        except (OSError, ssl.SSLError):
            raise Gone from None
        self.server.remember(self.sock)


class Server:
    """Takes everything but for the `answers` by verb: BANNER, EHLO, MAIL, RCPT, DATA, DOT (after a body), and so on.

    An answer is a reply, or called with the peer and the line; None says nothing. Answers may be changed at any time.
    """

    def __init__(
        self, *, extensions: Iterable[str] = ("PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"),
        context: ssl.SSLContext | None = None, listening: bool = True, narrow: bool = False, **answers: Answer,
    ) -> None:  # fmt: skip
        self.answers: dict[str, Answer] = dict(answers)
        self.extensions = tuple(extensions)
        self.context = context
        self.narrow = narrow
        self.log: list[Taken] = []
        self.lines: list[tuple[float, str]] = []
        self.connected: list[float] = []
        self.spans: list[float] = []  # seconds that each connection that is over lasted
        self.open = self.most_open = 0
        self._guard = threading.Lock()
        self._socks: list[socket.socket] = []
        self._listener: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        if listening:
            self.listen()

    def listen(self) -> None:
        """Accept connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        if self.narrow:  # as over a far network: the sender's kernel cannot take a large mail whole
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Be gone: no listener, and every connection is reset."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._guard:
            socks, self._socks = self._socks, []
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    close = refuse

    def remember(self, sock: socket.socket) -> None:
        with self._guard:
            self._socks.append(sock)

    def verbs(self, verb: str) -> list[float]:
        """When a command came."""
        return [at for at, line in list(self.lines) if line.upper().startswith(verb)]

    def copies(self) -> Counter[str]:
        """How often each delivery id was taken."""
        return Counter(taken.id for taken in list(self.log) if taken.is_copy)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._guard:
                self._socks.append(sock)
                self.connected.append(time.time())
                self.open += 1
                self.most_open = max(self.most_open, self._held())
                number = len(self.connected)
            threading.Thread(target=self._play, args=(sock, number), daemon=True).start()

    def _held(self) -> int:
        """How many connections their clients hold: not those that were closed a moment ago and wait for our thread."""
        poller = select.poll()
        known = [sock for sock in self._socks if sock.fileno() >= 0]
        for sock in known:
            poller.register(sock, select.POLLRDHUP)
        return len(known) - len(poller.poll(0))

    def _play(self, sock: socket.socket, number: int) -> None:
        peer = Peer(self, sock, number)
        began = time.monotonic()
        try:
            self._converse(peer)
        except Gone:
            pass
        finally:
            with self._guard:  # before the client can know that it is closed
                self.spans.append(time.monotonic() - began)
                self.open -= 1
                for known in (sock, peer.sock):
                    if known in self._socks:
                        self._socks.remove(known)
            with contextlib.suppress(OSError):
                peer.sock.close()

    def _converse(self, peer: Peer) -> None:
        self._reply(peer, "BANNER", "")
        while True:
            line = peer.until(b"\r\n").decode("utf-8", "replace")
            self.lines.append((time.time(), line))
            verb = line[:8].upper().split(" ")[0]
            if verb == "RCPT":
                peer.recipients.append(line.partition("<")[2].partition(">")[0])
            elif verb in ("MAIL", "RSET"):
                peer.recipients = []
            reply = self._reply(peer, verb, line)
            if verb == "STARTTLS" and reply.startswith("220") and self.context is not None:
                peer.held = b""
                peer.encrypt(self.context)
            elif verb == "RCPT" and reply[:1] != "2" and peer.recipients:
                peer.recipients.pop()
            elif verb == "DATA" and reply.startswith("354"):
                self._body(peer)
            elif verb == "QUIT" or reply.startswith("421"):
                return

    def _body(self, peer: Peer) -> None:
        octets = peer.until(b"\r\n.\r\n")
        found = MESSAGE_ID.search(octets)
        taken = Taken(time.time(), found[1].decode() if found else "?", tuple(peer.recipients))
        self.log.append(taken)
        peer.mails += 1
        peer.last = taken
        taken.reply = self._answer(peer, "DOT", taken.id) or ""
        if taken.reply:
            peer.say(taken.reply)
            taken.answered_at = time.time()

    def _answer(self, peer: Peer, verb: str, line: str) -> str | None:
        if verb == "EHLO" and "EHLO" not in self.answers:
            words = ["faulty", *self.extensions]
            return "\n".join([*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}"])
        answer = self.answers.get(verb, _USUAL.get(verb, "250 2.1.0 Ok"))
        return answer if isinstance(answer, str) else answer(peer, line)

    def _reply(self, peer: Peer, verb: str, line: str) -> str:
        reply = self._answer(peer, verb, line)
        if reply is not None:
            peer.say(reply)
        return reply or ""


class Gate:
    """An answer that waits until it is opened, once: for the one after the first `free`."""

    def __init__(self, reply: str = OK, *, free: int = 0) -> None:
        self.reply = reply
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()
        self._number = itertools.count(-free)

    def __call__(self, peer: Peer, line: str) -> str:
        if next(self._number) == 0:
            self.reached.release()
            self.opened.wait(120)
        return self.reply


def pause(peer: Peer, seconds: float) -> None:
    """Wait, unless the client leaves meanwhile."""
    poller = select.poll()
    poller.register(peer.sock, select.POLLRDHUP)
    if poller.poll(seconds * 1000):
        raise Gone


def slowly(seconds: float, reply: str = OK) -> Answer:
    """An answer after a while."""

    def answer(peer: Peer, line: str) -> str:
        pause(peer, seconds)
        return reply

    return answer


def first(count: int, reply: Answer, then: Answer = OK) -> Answer:
    """One answer `count` times over all connections, then another."""
    left = [count]

    def answer(peer: Peer, line: str) -> str | None:
        left[0] -= 1
        chosen = reply if left[0] >= 0 else then
        return chosen if isinstance(chosen, str) else chosen(peer, line)

    return answer
