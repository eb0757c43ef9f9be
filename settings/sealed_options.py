"""Secrets among an account's options: sealed for one option of one account, opened only where mail is sent."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from typing import Any

from postier.schemas.account import Account
from postier.schemas.errors import ConfigurationError
from postier.settings.seal import Sealer, Unsealable
from postier.settings.secrets import is_reference, is_secret_name, resolve_options

SEALED = "sealed:"


def is_sealed(value: Any) -> bool:
    """Whether an option's value is sealed text."""
    return isinstance(value, str) and value.startswith(SEALED)


def holds_secret(name: str, value: Any) -> bool:
    """Whether an option, or anything inside it, has the name of a secret."""
    if isinstance(value, Mapping):
        return is_secret_name(name) or any(holds_secret(str(key), inner) for key, inner in value.items())
    return is_secret_name(name)


def seal_options(
    sealer: Sealer, account: str, options: Mapping[str, Any], *, secret: Collection[str] = ()
) -> dict[str, Any]:
    """Options as they may be kept: every secret sealed for this account and option; references stay.

    `secret` names options that are secrets though their name does not say so. Sealing what is sealed already changes
    nothing. Raises ConfigurationError for sealed text that is not this account's.
    """
    kept: dict[str, Any] = {}
    for name, value in options.items():
        if is_sealed(value):
            _opened(sealer, account, name, value)
        elif value not in (None, "") and not is_reference(value) and (name in secret or holds_secret(name, value)):
            plain = json.dumps(value, ensure_ascii=False).encode()
            value = SEALED + base64.urlsafe_b64encode(sealer.seal(plain, _context(account, name))).decode()
        kept[name] = value
    return kept


def open_options(sealer: Sealer, account: Account) -> dict[str, Any]:
    """The account's options with every secret: sealed ones opened, references resolved.

    Raises ConfigurationError naming the one that cannot be had, never showing it.
    """
    where = f"accounts.{account.name}.options"
    plain = {name: value for name, value in account.options.items() if not is_sealed(value)}
    opened = resolve_options(plain, where=where)
    for name, value in account.options.items():
        if is_sealed(value):
            opened[name] = _opened(sealer, account.name, name, value)
    return opened


def reseal_options(sealer: Sealer, account: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Sealed options sealed anew with the key that seals now. Raises ConfigurationError."""
    plain = {name: _opened(sealer, account, name, value) for name, value in options.items() if is_sealed(value)}
    return {**options, **seal_options(sealer, account, plain, secret=frozenset(plain))}


def _context(account: str, option: str) -> bytes:
    return f"account:{account}:{option}".encode()


def _opened(sealer: Sealer, account: str, name: str, value: str) -> Any:
    try:
        sealed = base64.b64decode(value.removeprefix(SEALED), altchars=b"-_", validate=True)
        return json.loads(sealer.open(sealed, _context(account, name)))
    except (Unsealable, binascii.Error, ValueError):
        raise ConfigurationError(
            f"accounts.{account}.options.{name}: no configured seal key opens this secret, or it was sealed for "
            "another account; enter it again"
        ) from None
