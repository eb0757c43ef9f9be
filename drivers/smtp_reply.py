"""Reads replies off an SMTP connection: bounded in size, in lines and in time, and strict about their form.

Limits: 64 kB a reply, 2 kB a line, 100 lines. RFC 5321 section 4.5.3.1.5 allows 512 octets a line; real servers exceed
it.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import NamedTuple

from postier.schemas.errors import NarrowCause

MAX_REPLY = 65_536  # octets
MAX_LINE = 2_048  # octets
MAX_LINES = 100
_RECEIVE = 4_096
_MARKS = (b" ", b"-", b"")
_CODES = {b"%d" % code: code for code in range(200, 600)}
_AFTER_GOODBYE = 0.1  # seconds
_TIMEVAL = struct.Struct("@ll")  # seconds, microseconds; nought of both would mean no limit
_SLACK = 0.05  # seconds: timeouts nearer than this to each other are not worth a system call

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?![.\d])")


class WireBroken(Exception):
    """The connection is of no more use. `sent` is how many octets of a failed write the kernel took."""

    sent = 0
    cause: NarrowCause | None = None


class ConnectionLost(WireBroken):
    """The peer closed or reset the connection."""


class TooSlow(WireBroken):
    """A reply or a write did not finish within its time."""

    cause = "too_slow"


class ProtocolBroken(WireBroken):
    """What came is not SMTP, too big, or came unasked."""

    cause = "protocol"


class Reply(NamedTuple):
    """One complete reply. `text` is the server's words, lines joined by a line feed, nothing masked."""

    code: int
    text: str

    @property
    def enhanced(self) -> str | None:
        """The RFC 3463 code at the start of the text, if there is one."""
        found = _ENHANCED.match(self.text)
        return found.group(1) if found else None


class Wire:
    """One connected socket: writes octets, reads replies. Not for several threads at once.

    `timeout` is how many seconds one reply, or one write without progress, may take. `deadline` (on `clock`) ends
    everything, whatever the progress: a server that sends an octet a second is cut.
    """

    def __init__(self, sock: socket.socket, *, timeout: float, clock: Callable[[], float]) -> None:
        self.timeout = timeout
        self.deadline = clock() + timeout
        self._clock = clock
        self._buffer = b""
        self._at = 0  # what lies before was used
        self._adopt(sock)

    @property
    def unread(self) -> bool:
        """Octets have arrived that no reply has used."""
        return bool(self._buffer)

    @property
    def time_left(self) -> float:
        """Seconds one step may take now; never nought, which would mean no waiting at all."""
        return max(_SLACK, min(self.timeout, self.deadline - self._clock()))

    def write(self, octets: bytes) -> int:
        """Hand all octets to the kernel; returns their number. Raises ConnectionLost or TooSlow, `sent` set."""
        done, size = 0, len(octets)
        view: bytes | memoryview = octets
        try:
            while True:
                self._arm(self.deadline)
                done += self.sock.send(view)
                if done >= size:
                    return done
                view = memoryview(octets)[done:]
        except (TimeoutError, BlockingIOError):
            broken: WireBroken = TooSlow("too_slow: the server stopped taking what we send")
        except OSError as error:
            broken = ConnectionLost(_reason(error))
        except TooSlow as error:
            broken = error
        broken.sent = done
        raise broken from None

    def read(self, *, timeout: float | None = None) -> Reply:
        """Return the next reply. Raises ConnectionLost, TooSlow or ProtocolBroken.

        `timeout` replaces both the usual time for a reply and the deadline.
        """
        limit = min(self._clock() + self.timeout, self.deadline) if timeout is None else self._clock() + timeout
        lines: list[bytes] = []
        first: int | None = None
        total = 0
        while True:
            line, mark, code = self._line(limit)
            total += len(line)
            if total > MAX_REPLY or len(lines) >= MAX_LINES:
                raise ProtocolBroken("protocol: a reply is longer than 100 lines or 64 kB")
            if first is None:
                if mark != b"-":
                    return Reply(code, line.decode("utf-8", "backslashreplace"))
                first = code
            elif code != first:
                raise ProtocolBroken("protocol: the lines of one reply carry different codes")
            lines.append(line)
            if mark != b"-":
                return Reply(code, b"\n".join(lines).decode("utf-8", "backslashreplace"))

    def _line(self, limit: float) -> tuple[bytes, bytes, int]:
        """The next line's text, the mark before it, and its code."""
        searched = self._at
        while (end := self._buffer.find(b"\n", searched)) < 0:
            if len(self._buffer) - self._at > MAX_LINE:
                raise ProtocolBroken("protocol: a reply line is longer than 2 kB")
            self._receive(limit)
            searched = self._at
        buffer, at = self._buffer, self._at
        if end + 1 < len(buffer):
            self._at = end + 1
        else:
            self._buffer, self._at = b"", 0
        stop = end - 1 if buffer[end - 1 : end] == b"\r" else end
        code = _CODES.get(buffer[at : at + 3])
        mark = buffer[at + 3 : at + 4] if stop > at + 3 else b""
        if code is None or mark not in _MARKS:
            raise ProtocolBroken("protocol: the answer is not an SMTP reply")
        if stop - at > MAX_LINE:
            raise ProtocolBroken("protocol: a reply line is longer than 2 kB")
        return buffer[at + 4 : stop], mark, code

    def is_quiet(self) -> bool:
        """Say whether an idle connection still stands and nothing came unasked."""
        if self._buffer:
            return False
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        if not poller.poll(0):
            return True
        if not isinstance(self.sock, ssl.SSLSocket):
            return False
        try:  # TLS 1.3 may send session tickets at any time: they are no reply
            self._set_timeout(0.0)
            self.sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False

    def swap(self, sock: socket.socket) -> None:
        """Go on over another socket (TLS around the old one); nothing read before survives."""
        self._buffer, self._at = b"", 0
        self._adopt(sock)

    def wait_for_the_end(self, seconds: float) -> None:
        """Read and forget whatever comes until the peer closes, `seconds` at most. Never raises.

        Who has said 221 closes at once (RFC 5321 section 4.1.1.10), or forgets to: little is waited after it.
        """
        limit = self._clock() + seconds
        try:
            while True:
                self._buffer, self._at = b"", 0
                self._receive(limit)
                if self._buffer.startswith(b"221"):
                    limit = min(limit, self._clock() + _AFTER_GOODBYE)
        except (WireBroken, OSError, ValueError):
            return

    def close(self) -> None:
        """Close at once, without a farewell. Calling twice is safe."""
        self.sock.close()

    def _arm(self, limit: float) -> None:
        left = limit - self._clock()
        if left <= 0:
            raise TooSlow("too_slow: the server took longer than it may")
        wanted = left if left < self.timeout else self.timeout
        if abs(wanted - self._armed) > _SLACK:
            self._set_timeout(wanted)

    def _adopt(self, sock: socket.socket) -> None:
        self.sock = sock
        self._kernel_waits = type(sock) is socket.socket
        if self._kernel_waits:
            sock.settimeout(None)
        self._set_timeout(self.timeout)

    def _set_timeout(self, seconds: float) -> None:
        """A plain socket's time is kept by the kernel: Python asks it with a poll before every send and receive."""
        self._armed = seconds
        if self._kernel_waits:
            micros = max(1, int(seconds * 1e6))
            patience = _TIMEVAL.pack(*divmod(micros, 1_000_000))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        else:
            self.sock.settimeout(seconds)

    def _receive(self, limit: float) -> None:
        while True:
            self._arm(limit)
            try:
                octets = self.sock.recv(_RECEIVE)
            except (TimeoutError, BlockingIOError):
                if self._clock() >= limit - _SLACK:
                    raise TooSlow("too_slow: no complete reply in time") from None
                continue
            except OSError as error:
                raise ConnectionLost(_reason(error)) from None
            if not octets:
                raise ConnectionLost("the server closed the connection")
            self._buffer, self._at = self._buffer[self._at :] + octets, 0
            return


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "the TLS connection broke"
    return (error.strerror or "the connection broke").lower()
