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
    opens counts as none. One that was saved when another seal key was the first is found, and kept by the first one
    from then on, so that the older key can be taken away.
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
        return self._older(key) if sealed is None else self._opened(sealed, name)

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

    def _older(self, key: str) -> bytes | None:
        """What was saved under an older seal key, now saved under the first one for what is left of its time."""
        for older in self._sealer.fingerprint_keys[1:]:
            name = self._name(key, older)
            with translated():
                sealed, left = self._store.redis.pipeline(transaction=True).get(name).pttl(name).execute()
            value = self._opened(sealed, name) if sealed is not None and left > 0 else None
            if value is not None:
                new = self._name(key)
                with translated():  # nx: somebody may have logged in anew meanwhile
                    self._store.redis.set(new, self._sealer.seal(value, new.encode()), px=left, nx=True)
                return value
        return None

    def _opened(self, sealed: bytes, name: str) -> bytes | None:
        try:
            return self._sealer.open(sealed, name.encode())
        except Unsealable:
            return None

    def _name(self, key: str, under: bytes | None = None) -> str:
        under = under or self._sealer.fingerprint_key
        digest = hmac.new(under, f"{self._owner}\0{key}".encode(), hashlib.sha256).hexdigest()
        return self._store.key(f"tokens:{digest}")
