"""Sealing at rest: AES-256-GCM with key ids, so that keys can be rotated."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from postier.schemas.errors import ConfigurationError

_NONCE = 12


class Unsealable(ValueError):
    """The sealed text was made with a key we do not have, for another context, or was changed.

    `elsewhere` when another process may have the key: ours are not proved to be those that others seal with.
    """

    def __init__(self, text: str, *, elsewhere: bool = False) -> None:
        super().__init__(text)
        self.elsewhere = elsewhere


class Sealer:
    """Seals with the first key, opens with any. Sealed form: length of the key id, key id, nonce, ciphertext.

    `context` binds a sealed text to its place (a delivery id, an account name): elsewhere it does not open.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ConfigurationError("POSTIER_SEAL_KEYS: at least one key is needed")
        self._ciphers = {name.encode(): AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(self._ciphers))
        self._cipher = self._ciphers[self._current]
        self._head = bytes([len(self._current)]) + self._current
        self.fingerprint_key = next(iter(keys.values()))
        self.fingerprint_keys = tuple(keys.values())
        self._proved: set[bytes] = set()  # names of keys that opened something
        self._keyed = hmac.new(self.fingerprint_key, digestmod="sha256")

    @classmethod
    def from_text(cls, text: str) -> Sealer:
        """Read `id:base64,id:base64...`. Raises ConfigurationError without showing the text."""
        keys: dict[str, bytes] = {}
        for number, part in enumerate(text.split(","), start=1):
            name, _, encoded = part.strip().partition(":")
            try:
                key = base64.b64decode(encoded, altchars=b"-_", validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not name.isalnum() or len(name) > 32 or len(key) != 32:
                raise ConfigurationError(
                    f"POSTIER_SEAL_KEYS: key number {number} is not `id:base64` with a short id and 32 bytes"
                )
            keys[name] = key
        return cls(keys)

    @staticmethod
    def new_key(name: str = "k1") -> str:
        """A fresh key in the form `from_text` reads."""
        return f"{name}:{base64.urlsafe_b64encode(os.urandom(32)).decode()}"

    def keyed_fingerprint(self, text: bytes) -> str:
        """HMAC-SHA-256 (hex) of `text` under the first key: tells equal texts without telling them."""
        keyed = self._keyed.copy()  # the key is worked in once
        keyed.update(text)
        return keyed.hexdigest()

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Seal `plain` for `context`."""
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._cipher.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """The plain text again. Raises Unsealable."""
        end = 1 + sealed[0] if sealed else 0
        name = sealed[1:end]
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise Unsealable("sealed with a key that is not configured", elsewhere=name.isalnum())
        try:
            plain = cipher.decrypt(sealed[end : end + _NONCE], sealed[end + _NONCE :], context)
        except (InvalidTag, ValueError):
            if name in self._proved:
                raise Unsealable("the sealed text was changed or belongs elsewhere") from None
            text = "sealed with another key of the same name, changed, or for elsewhere"
            raise Unsealable(text, elsewhere=True) from None
        self._proved.add(name)
        return plain
