"""The `pigeon` driver: one line to log in, one per recipient, then the mail; each is answered with one line.

[accounts.loft]
driver = "pigeon"
sender = { address = "no-reply@example.org" }
options = { host = "pigeons.example.org", token = "env:PIGEON_TOKEN" }
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field, SecretStr

from postier.drivers.base import CheckStep, Driver, DriverOptions
from postier.schemas.email import Email
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    OutcomeUnknown,
    RateLimited,
    RecipientRefused,
    TemporaryError,
    Unreachable,
)
from postier.schemas.receipt import Receipt


class PigeonOptions(DriverOptions):
    """Where the loft is. `timeout` is seconds for each answer."""

    host: str = Field(min_length=1)
    port: int = Field(default=1850, ge=1, le=65535)
    token: SecretStr = Field(min_length=1)
    timeout: float = Field(default=10.0, gt=0, le=60)


class PigeonDriver(Driver[PigeonOptions]):
    """Sends one mail per connection."""

    Options = PigeonOptions
    announces_handover = True

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        with self._loft() as loft:
            loft.log_in(self.options.token)
            for recipient in email.recipients:
                loft.ask(f"TO {recipient}", "rcpt")
            email.handing_over()
            return Receipt(provider_id=loft.hand_over(email.mime), status="queued")

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Connect and log in."""
        began = time.monotonic()
        try:
            with self._loft() as loft:
                yield CheckStep("connect", True, time.monotonic() - began)
                loft.log_in(self.options.token)
            yield CheckStep("login", True, time.monotonic() - began)
        except DeliveryError as error:
            yield CheckStep("login", False, time.monotonic() - began, error.text, "Check host, port and token.")

    @contextmanager
    def _loft(self) -> Iterator[_Loft]:
        places = [(self.options.host, self.options.port)]
        if self.ports.resolve is not None:
            places = self.ports.resolve(self.options.host, self.options.port)
        try:
            sock = socket.create_connection(places[0], self.options.timeout)
        except OSError as error:
            raise Unreachable(f"no connection: {type(error).__name__}", stage="connect") from None
        with sock, sock.makefile("rb") as lines:
            yield _Loft(sock, lines)


class _Loft:
    def __init__(self, sock: socket.socket, lines: object) -> None:
        self._sock = sock
        self._lines = lines

    def log_in(self, token: SecretStr) -> None:
        self.ask(f"TOKEN {token.get_secret_value()}", "auth")

    def ask(self, line: str, stage: str) -> str:
        try:
            self._sock.sendall(line.encode() + b"\n")
            word, _, rest = self._lines.readline(200).decode("ascii", "replace").strip().partition(" ")
        except OSError as error:
            raise Unreachable(f"no answer: {type(error).__name__}", stage=stage) from None
        match word:
            case "OK":
                return rest
            case "DENIED":
                raise AuthenticationFailed("the loft does not know this token", stage=stage)
            case "NOBODY":
                raise RecipientRefused("nobody lives there", stage=stage)
            case "SLOW":
                raise RateLimited("too many pigeons", retry_after=5.0, stage=stage)
            case "BUSY":
                raise TemporaryError("the pigeons are asleep", stage=stage)
        raise Unreachable("the loft closed the door", stage=stage)

    def hand_over(self, mime: bytes) -> str:
        try:
            self._sock.sendall(b"MAIL %d\n" % len(mime) + mime)
            word, _, rest = self._lines.readline(200).decode("ascii", "replace").strip().partition(" ")
        except OSError:
            word, rest = "", ""
        if word != "TAKEN":
            raise OutcomeUnknown(
                "the mail was handed over and no answer came", stage="body", evidence={"octets": len(mime)}
            )
        return rest
