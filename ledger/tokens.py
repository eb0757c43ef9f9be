"""OAuth2 logins in Redis: sealed, one key per identity and owner, and a lock so that one caller alone renews them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Iterator

from redis.exceptions import RedisError

from postier.ledger.store import Store, translated
from postier.settings.seal import Sealer, Unsealable


class SealedTokenStore:
    """What `drivers.base.TokenStore` asks for, over the ledger's Redis. Safe for threads and processes.

    `owner` keeps tenants apart: the same identity of two owners has two entries, so that nobody comes to a login by
    writing its ids into an account. Key names say nothing: they are keyed hashes. A login that no configured seal key
    opens counts as none.
    """

    def __init__(self, store: Store, sealer: Sealer, *, owner: str) -> None:
        self._store = store
        self._sealer = sealer
        self._owner = owner

    def load(self, key: str) -> bytes | None:
        """What was saved, or None. Raises LedgerUnavailable."""
        name = self._name(key)
        with translated():
            sealed = self._store.redis.get(name)
        if sealed is None:
            return None
        try:
            return self._sealer.open(sealed, name.encode())
        except Unsealable:
            return None

    def save(self, key: str, value: bytes, ttl: float) -> None:
        """Keep `value` for `ttl` seconds. Raises LedgerUnavailable."""
        name = self._name(key)
        with translated():
            self._store.redis.set(name, self._sealer.seal(value, name.encode()), px=max(int(ttl * 1000), 1))

    @contextlib.contextmanager
    def lock(self, key: str, seconds: float) -> Iterator[None]:
        """Be alone with the key among all processes, for at most `seconds` after as long a wait.

        Raises TimeoutError when it cannot be had, LedgerUnavailable.
        """
        lock = self._store.redis.lock(
            self._name(key) + ":lock", timeout=seconds, blocking_timeout=seconds, sleep=0.02, thread_local=False
        )
        with translated():
            entered = lock.acquire()
        if not entered:
            raise TimeoutError("the lock was not to be had in time")
        try:
            yield
        finally:
            with contextlib.suppress(RedisError, OSError):  # it may have run out and be another's; it ends by itself
                lock.release()

    def _name(self, key: str) -> str:
        digest = hmac.new(self._sealer.fingerprint_key, f"{self._owner}\0{key}".encode(), hashlib.sha256).hexdigest()
        return self._store.key(f"tokens:{digest}")
