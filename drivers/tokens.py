"""OAuth2 access tokens shared by everybody who sends as one identity: fetched once, early, and by one caller at a time.

Neither msal nor Google's flows do this: eight threads without a token made eight requests (msal 1.39). Here the first
caller asks and the rest wait for its answer, be it a token or a refusal, over threads by a lock and over processes by
the token store's. A token that is due is renewed by one caller while the others go on with it, and stays in use when
the renewal fails.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from postier.drivers.base import TokenStore
from postier.schemas.errors import AuthenticationFailed, DeliveryError, PostierError, RateLimited, TemporaryError

REQUEST_SECONDS = 10.0  # everything one token costs: look-up, connection, all requests
REQUEST_OCTETS = 65_536  # of one answer

_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_ALONE_SECONDS = REQUEST_SECONDS + 5
_WORTHLESS = 30.0  # seconds before its end: a token must survive the trip
_EARLY = 300.0  # seconds before its end, when the service does not say when to renew
_USUAL_PAUSE = 5.0  # seconds after a failure that names no time; the first answer is everybody's answer
_LONGEST_PAUSE = 86_400.0


@dataclass(frozen=True, slots=True)
class Grant:
    """An access token, its end and the time to renew it (seconds since 1970), and what the next request needs."""

    token: str = field(repr=False)
    expires_at: float
    refresh_at: float
    state: str = field(default="", repr=False)

    @classmethod
    def lasting(
        cls, token: object, expires_in: float, now: float, *, refresh_in: float | None = None, state: str = ""
    ) -> Grant:
        """A token with so many seconds to live; without `refresh_in` it is renewed five minutes early.

        Raises TemporaryError for one that could not stand in a header: it would end the line, or the driver.
        """
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise oauth_unavailable("the token service gave something that is no token")
        due = refresh_in if refresh_in is not None else max(expires_in - _EARLY, expires_in / 2)
        return cls(token, now + expires_in, now + due, state)


Fetch = Callable[[str], Grant]


class MemoryTokenStore:
    """The store of a driver that was handed none: this process, until it ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._locks: dict[str, threading.Lock] = {}

    def load(self, key: str) -> bytes | None:
        """What was saved, while its time lasts."""
        with self._guard:
            until, value = self._kept.get(key, (0.0, b""))
            return value if self._clock() < until else None

    def save(self, key: str, value: bytes, ttl: float) -> None:
        """Keep `value` for `ttl` seconds."""
        with self._guard:
            self._kept[key] = (self._clock() + ttl, value)

    @contextlib.contextmanager
    def lock(self, key: str, seconds: float) -> Iterator[None]:
        """Be alone with the key; raises TimeoutError after waiting `seconds`."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=seconds):
            raise TimeoutError("the lock was not to be had in time")
        try:
            yield
        finally:
            lock.release()


class FixedToken:
    """A TokenSource that has one token to give: for a check, which must not use another."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, *, refused: str | None = None) -> str:
        """The token."""
        return self._token


class SharedTokens:
    """A TokenSource for one identity. Safe for threads, and for processes when the store is.

    `fetch(state)` makes one token request and raises a DeliveryError when it fails; it is called by one caller at a
    time. `keep` is how many seconds a state outlives its token (a refresh token does), None for not at all.
    """

    def __init__(
        self,
        key: str,
        store: TokenStore,
        fetch: Fetch,
        *,
        keep: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._store = store
        self._fetch = fetch
        self._keep = keep
        self._clock = clock
        self._flight = threading.Lock()
        self._grant: Grant | None = None
        self._pause: tuple[float, DeliveryError] | None = None

    def __call__(self, *, refused: str | None = None) -> str:
        """A token that is good now and is not `refused`. Raises AuthenticationFailed or TemporaryError."""
        good = self._good(self._grant, refused)
        if good is not None:
            if not self._is_due(good) or not self._flight.acquire(blocking=False):
                return good.token
        elif not self._flight.acquire(timeout=2 * _ALONE_SECONDS):
            raise TemporaryError("oauth_unavailable: no token came in time", stage="auth")
        try:
            return self._renewed(refused).token
        finally:
            self._flight.release()

    def uncached(self) -> str:
        """A token that was asked for now, whatever is cached: for a check. Raises as the call does."""
        with _store_errors():
            kept = self._load()
            grant = self._fetch(kept.state if kept else "")
            if grant.state:  # a refresh token may have been exchanged for the next one
                self._save(grant)
        return grant.token

    def adopt(self, grant: Grant) -> None:
        """Take over what a person's login gave. Raises TemporaryError when it cannot be stored."""
        with _store_errors(), self._store.lock(self._key, _ALONE_SECONDS):
            self._save(grant)
            self._store.save(f"{self._key}/away", b"", 1.0)
        self._grant, self._pause = grant, None

    def _renewed(self, refused: str | None) -> Grant:
        good = self._good(self._grant, refused)
        if good is not None and not self._is_due(good):
            return good
        try:
            grant = self._alone(refused)
        except DeliveryError as error:
            if good is None:
                raise
            wait = getattr(error, "retry_after", None) or 0.0
            grant = replace(good, refresh_at=self._clock() + max(wait, 30.0))
        self._grant = grant
        return grant

    def _alone(self, refused: str | None) -> Grant:
        if self._pause is not None and self._clock() < self._pause[0]:
            raise self._again(*self._pause)
        with _store_errors(), self._store.lock(self._key, _ALONE_SECONDS):
            kept = self._load()
            found = self._good(kept, refused)
            if found is not None and not self._is_due(found):
                return found
            self._heed_others()
            try:
                grant = self._fetch(kept.state if kept else "")
            except DeliveryError as error:
                self._note(error)
                raise
            self._pause = None
            with contextlib.suppress(PostierError):  # a token in hand is worth more than its copy
                self._save(grant)
            return grant

    def _good(self, grant: Grant | None, refused: str | None) -> Grant | None:
        if grant is None or grant.token == refused or self._clock() >= grant.expires_at - _WORTHLESS:
            return None
        return grant

    def _is_due(self, grant: Grant) -> bool:
        return self._clock() >= grant.refresh_at

    # --- what the store keeps

    def _load(self) -> Grant | None:
        value = self._store.load(self._key)
        try:
            kept = json.loads(value) if value else None
            return Grant(kept["token"], kept["expires_at"], kept["refresh_at"], kept["state"]) if kept else None
        except (ValueError, KeyError, TypeError):
            return None

    def _save(self, grant: Grant) -> None:
        kept = {
            "token": grant.token,
            "expires_at": grant.expires_at,
            "refresh_at": grant.refresh_at,
            "state": grant.state,
        }
        life = max(grant.expires_at - self._clock(), 1.0)
        self._store.save(self._key, json.dumps(kept).encode(), max(life, self._keep or 0.0))

    # --- failures, told to everybody

    def _note(self, error: DeliveryError) -> None:
        wished = getattr(error, "retry_after", None)
        seconds = min(max(wished if wished is not None else _USUAL_PAUSE, 1.0), _LONGEST_PAUSE)
        self._pause = (self._clock() + seconds, error)
        if isinstance(error, TemporaryError):  # a refusal may be mended by a person at any moment: not told further
            told = {"until": self._pause[0], "text": error.text, "code": error.code, "wished": wished is not None}
            told["limited"] = isinstance(error, RateLimited)
            with contextlib.suppress(PostierError):
                self._store.save(f"{self._key}/away", json.dumps(told).encode(), seconds)

    def _heed_others(self) -> None:
        value = self._store.load(f"{self._key}/away")
        try:
            told = json.loads(value) if value else None
        except ValueError:
            return
        if told is None or told["until"] <= self._clock():
            return
        kind = RateLimited if told["limited"] else TemporaryError
        wait = told["until"] - self._clock() if told["wished"] else None
        error = kind(told["text"], retry_after=wait, code=told["code"], stage="auth")
        self._pause = (told["until"], error)
        raise error

    def _again(self, until: float, error: DeliveryError) -> DeliveryError:
        again = copy.copy(error)
        if isinstance(again, TemporaryError) and again.retry_after is not None:
            again.retry_after = until - self._clock()
        return again


def oauth_unavailable(
    reason: str, *, retry_after: float | None = None, code: int | None = None, limited: bool = False
) -> TemporaryError:
    """The error for a token service that is away: the mail waits."""
    kind = RateLimited if limited else TemporaryError
    text = f"oauth_unavailable: {reason}"
    return kind(text, retry_after=retry_after, code=code, stage="auth", cause="oauth_unavailable")


def login_refused(text: str, *, code: int | None = None, needs_login: bool = False) -> AuthenticationFailed:
    """The error for a login that only a person can mend."""
    return AuthenticationFailed(text, code=code, needs_login=needs_login, stage="auth", reply_class="auth")


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except DeliveryError:
        raise
    except (PostierError, TimeoutError):
        raise oauth_unavailable("the token store did not answer in time") from None
