"""What every driver is: one method that makes one attempt. The core knows no more of a driver than this file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import DeliveryError
from postier.schemas.receipt import Receipt


class DriverOptions(BaseModel):
    """Base of every driver's typed options: frozen, and an unknown or missing key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)  # the input may be a secret


OptionsT = TypeVar("OptionsT", bound=DriverOptions)
Result = Receipt | DeliveryError


class TokenSource(Protocol):
    """Gives OAuth2 access tokens for one account. Called by several threads at once; caching is its own affair."""

    def __call__(self, *, refused: str | None = None) -> str:
        """Return a token that is good now.

        `refused` is the token the server has just turned down: a cached copy of it must not come back. Raises
        AuthenticationFailed when only a person can help, TemporaryError when the token service is away.
        """


class TokenStore(Protocol):
    """Where OAuth2 logins are kept between sends, processes and restarts. Keys and values are opaque to it.

    Used by several threads at once. Any method may raise a PostierError when the store is away.
    """

    def load(self, key: str) -> bytes | None:
        """Return what was saved, or None when there is nothing, its time is over or it cannot be opened any more."""

    def save(self, key: str, value: bytes, ttl: float) -> None:
        """Keep `value` for `ttl` seconds, in place of what was there."""

    def lock(self, key: str, seconds: float) -> AbstractContextManager[None]:
        """Be alone with the key: wait for it at most `seconds`, hold it at most `seconds`, whoever dies meanwhile.

        Raises TimeoutError on entering when it cannot be had.
        """


@dataclass(frozen=True, slots=True)
class Ports:
    """What a driver may need from outside. Everything has a default that works without postier around it.

    `resolve(host, port)` returns the addresses that may be connected to, as `(address, port)` pairs in order of
    preference; it raises Unreachable for a host that does not resolve and SenderRefused for one the egress guard
    forbids. `clock` is monotonic seconds. `idle_sessions` is how many idle connections this process may keep for the
    account. `tokens` is where an OAuth2 login gets its access tokens. `token_store` is where a driver that fetches its
    own tokens shares them; without one they stay in this process. `logins()` is entered around every login; it raises
    a DeliveryError when none may be tried now.
    """

    resolve: Callable[[str, int], list[tuple[str, int]]] | None = None
    clock: Callable[[], float] = time.monotonic
    idle_sessions: int = 4
    tokens: TokenSource | None = None
    token_store: TokenStore | None = None
    logins: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of `Driver.check`: what was tried, how it went, how long it took, and what to do about it.

    `words` are the server's own; `advice` is one sentence for a person, empty when the step passed.
    """

    name: Literal["options", "resolve", "connect", "tls", "greeting", "login", "sender", "test_mail"]
    ok: bool
    seconds: float
    words: str = ""
    advice: str = ""
    details: dict[str, str] = field(default_factory=dict)


class Driver(Generic[OptionsT]):
    """Sends mail for one account. Instances are shared by threads and live as long as the account's settings.

    `announces_handover` says that `send` calls `email.handing_over()` itself right before the provider may own the
    mail; otherwise the caller does so before `send`.
    """

    Options: ClassVar[type[DriverOptions]] = DriverOptions
    announces_handover: ClassVar[bool] = False

    def __init__(self, options: OptionsT, *, sender: Mailbox, ports: Ports | None = None) -> None:
        self.options = options
        self.sender = sender
        self.ports = ports or Ports()

    @classmethod
    def default_limits(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG003
        """An account's limits where it sets none of its own, as fields of `Limits`; `options` are unchecked."""
        return {}

    def send(self, email: Email) -> Receipt:
        """Make one attempt. Returns the receipt or raises a DeliveryError, nothing else; never retries, never logs."""
        raise NotImplementedError

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Send several mails one after the other; yields each one's result before the next one's body leaves.

        Drivers that can pipeline override this. `emails` is consumed lazily; when it ends, the conversation ends.
        """
        for email in emails:
            try:
                if not self.announces_handover:
                    email.handing_over()
                yield email, self.send(email)
            except DeliveryError as error:
                yield email, error

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """Try the account step by step without any cache; stops after the first failed step."""
        raise NotImplementedError

    def warnings(self, today: date | None = None) -> list[str]:
        """Sentences for a person about what will stop working within 30 days of `today`, or has. Asks nobody."""
        return []

    def close(self) -> None:
        """Give back what the driver holds (connections). Calling twice is safe."""
