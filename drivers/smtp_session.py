"""One SMTP session: a connection, what the server offers, and what is owed in either direction."""

from __future__ import annotations

from dataclasses import dataclass, field

from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_reply import ProtocolBroken, Reply, Wire, WireBroken


@dataclass(eq=False, slots=True)
class Session:
    """A connection ready for mail, with what the server offers and how far it has been used.

    `expected` counts replies still to come, `in_body` says that the server waits for a body: unless both are nought the
    session must not be used again. `overlaps` says that commands may follow a body before its verdict. `uses` counts
    mails begun, `mails` bodies handed over. `odd` asks for a RSET before the next mail.
    """

    wire: Wire
    options: SmtpOptions
    extensions: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    banner: str = ""
    uses: int = 0
    mails: int = 0
    expected: int = 0
    in_body: bool = False
    odd: bool = False
    broken: bool = False
    idle_since: float = 0.0
    pipelining: bool = False
    overlaps: bool = False
    size_limit: int | None = None
    utf8: bool = False

    @property
    def is_clean(self) -> bool:
        """Nothing is owed in either direction."""
        return not (self.broken or self.in_body or self.expected or self.wire.unread)

    def send(self, octets: bytes, replies: int) -> None:
        """Write commands that will draw so many replies."""
        self.expected += replies
        self.wire.write(octets)

    def reply(self) -> Reply:
        """The next expected reply. With the last one nothing more may have come: that would be another's answer."""
        reply = self.wire.read()
        self.expected -= 1
        if not self.expected and self.wire.unread:
            raise ProtocolBroken("protocol: the server sent a reply nobody asked for")
        return reply

    def ask(self, command: str) -> Reply:
        """Send one command and return its reply."""
        self.send(command.encode("ascii") + b"\r\n", 1)
        return self.reply()

    def leave(self) -> None:
        """Close, with a QUIT when the session is clean. The answer is not waited for. Calling twice is safe."""
        if self.is_clean:
            self.broken = True
            try:
                self.wire.deadline = float("inf")
                self.wire.write(b"QUIT\r\n")
            except WireBroken:
                pass
        self.drop()

    def drop(self) -> None:
        """Close at once."""
        self.broken = True
        self.wire.close()
