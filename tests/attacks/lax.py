"""An SMTP server that is careless on purpose: it ends lines and bodies where real, vulnerable servers did.

CVE-2023-51764 (Postfix), -51765 (sendmail), -51766 (Exim), CVE-2024-27305 (aiosmtpd): whoever lets a lone CR, a lone LF
or a NUL through gives strangers a second mail.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field

_LINE = re.compile(rb"\r\n|\n|\r")
# What somebody, somewhere, takes for the end of a body.
ENDS = re.compile(rb"(?:\r\n|\n|\r|\0)\.\0?(?:\r\n|\n|\r)")
_GREETING = b"220 lax ESMTP\r\n"
_OFFER = b"250-lax\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


@dataclass
class Taken:
    """One mail as the server understood it; `body` is still stuffed."""

    mail_from: bytes
    rcpts: list[bytes]
    body: bytes


@dataclass
class Conversation:
    """What one client said, and what the server made of it."""

    octets: bytearray = field(default_factory=bytearray)
    commands: list[bytes] = field(default_factory=list)


class LaxServer:
    """Takes everything from everybody. A context manager; leaves nothing running."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.conversations: list[Conversation] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> LaxServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for sock in self._socks:
            sock.close()

    def commands(self) -> list[bytes]:
        """Every line that was taken for a command."""
        return [command for one in self.conversations for command in one.commands]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        one = Conversation()
        self.conversations.append(one)
        held, body, mail_from, rcpts = b"", False, b"", list[bytes]()
        with contextlib.suppress(OSError):
            sock.sendall(_GREETING)
            while octets := sock.recv(65_536):
                one.octets += octets
                held += octets
                while found := (ENDS if body else _LINE).search(held):
                    if held.endswith(b"\r") and found.end() == len(held) and not body:
                        break  # its LF may be on the way
                    piece, held = held[: found.start()], held[found.end() :]
                    if body:
                        self.taken.append(Taken(mail_from, rcpts, piece + b"\r\n"))
                        body, mail_from, rcpts = False, b"", []
                        sock.sendall(b"250 2.0.0 queued\r\n")
                        continue
                    one.commands.append(piece)
                    verb = piece[:4].upper()
                    if verb == b"MAIL":
                        mail_from = piece
                    elif verb == b"RCPT":
                        rcpts.append(piece)
                    elif verb == b"DATA":
                        body = True
                    sock.sendall(
                        {b"EHLO": _OFFER, b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n")
                    )
