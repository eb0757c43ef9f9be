"""References to secrets: `env:NAME` and `file:PATH`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from postier.schemas.errors import ConfigurationError

_MOST = 1_048_576  # bytes of a secret's file; a device like /dev/zero never ends
_SECRET_NAMES = ("password", "secret", "token", "api_key", "private_key", "seal_keys")


def is_reference(value: object) -> bool:
    """Whether a value says where the secret is, instead of being it."""
    return isinstance(value, str) and value.startswith(("env:", "file:"))


def resolve_secret(reference: str, *, where: str) -> str:
    """The text behind `env:NAME` or `file:PATH`; any other text is returned as it is.

    Raises ConfigurationError naming `where` and the reference, never the secret.
    """
    if reference.startswith("env:"):
        name = reference[4:]
        value = os.environ.get(name) if name.isprintable() else None
        if value is None:
            raise ConfigurationError(f"{where}: the environment variable {name} is not set")
        return value
    if reference.startswith("file:"):
        path = Path(reference[5:])
        try:
            with path.open("rb") as file:
                octets = file.read(_MOST + 1)
            if len(octets) <= _MOST:
                return octets.decode("utf-8-sig").rstrip("\r\n")
            reason = f"it is larger than {_MOST} bytes"
        except OSError as error:
            reason = str(error.strerror)
        except UnicodeDecodeError:
            reason = "not UTF-8 text"
        except ValueError:
            reason = "this is no path"
        raise ConfigurationError(f"{where}: cannot read {path}: {reason}")
    return reference


def resolve_options(options: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Options with every `env:` and `file:` reference among them resolved."""
    return {
        key: resolve_secret(value, where=f"{where}.{key}") if isinstance(value, str) else value
        for key, value in options.items()
    }


def is_secret_name(name: str) -> bool:
    """Whether an option of this name holds a secret that must not be shown."""
    return any(word in name.lower() for word in _SECRET_NAMES)


def mask_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they may be shown: references stay, secrets become dots."""
    shown: dict[str, Any] = {}
    for key, value in options.items():
        sealed = isinstance(value, str) and value.startswith("sealed:")
        hidden = sealed or (is_secret_name(key) and value and not is_reference(value))
        shown[key] = "••••••" if hidden else mask_options(value) if isinstance(value, Mapping) else value
    return shown
