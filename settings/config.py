"""Typed configuration: `POSTIER_*` from the environment, accounts and tenants from a TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from postier.schemas.errors import ConfigurationError
from postier.settings.secrets import resolve_secret

if TYPE_CHECKING:  # a command that looks up one delivery needs neither accounts nor ciphers
    from postier.schemas.account import Registry
    from postier.settings.seal import Sealer


# Variables that are read, but not as settings: at start, by the demo's commands, by `run.py`.
OTHERS = ("POSTIER_ALLOW_VOLATILE", "POSTIER_DEMO_FOLDER", "POSTIER_NO_APT")
# What Kubernetes gives every container of a namespace that has a service named postier or postier-….
_OF_A_SERVICE = re.compile(r"POSTIER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)")


class Settings(BaseSettings):
    """Everything that can be set; `docs/settings.md` explains each. Times are in seconds, an empty variable is unset.

    `seal_keys` is `id:base64key[,id:base64key...]` (32-byte keys, the first one seals, the others only open), or a
    reference `env:NAME` or `file:PATH` to such a text. `egress_allow` names, separated by commas, the inner hosts,
    addresses and networks (each with an optional `:port`) that every account may send through; beyond it, only accounts
    of the accounts file open the egress guard, by their own `allow_hosts`. `public_url` is where the world reaches
    `postier senders serve`.
    """

    model_config = SettingsConfigDict(env_prefix="POSTIER_", env_ignore_empty=True, extra="ignore", frozen=True)

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False)  # it may hold a password
    namespace: str = Field(default="postier", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    accounts_file: Path | None = None
    seal_keys: SecretStr = SecretStr("")
    data_dir: Path = Path(".postier")
    lease_seconds: float = Field(default=15.0, ge=1, le=300)
    crash_limit: int = Field(default=3, ge=1, le=20)
    conversation_size: int = Field(default=64, ge=1, le=100)
    conversation_seconds: float = Field(default=5.0, gt=0, le=3600)
    keep_sent_seconds: int = Field(default=30 * 86_400, ge=60, le=3650 * 86_400)
    keep_keys_seconds: int = Field(default=7 * 86_400, ge=60, le=3650 * 86_400)
    processes: int = Field(default=2, ge=1, le=64)
    threads: int = Field(default=8, ge=1, le=512)
    drain_seconds: float = Field(default=25.0, ge=1, le=600)
    redis_timeout: float = Field(default=4.0, gt=0, le=600)
    egress_allow: str = ""
    public_url: str = Field(default="", pattern=r"^(https://[^\s\"'<>?#]+)?$")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "json"

    def sealer(self) -> Sealer:
        """The sealer of payloads and secrets. Raises ConfigurationError when no key is set."""
        from postier.settings.seal import Sealer

        text = self.seal_keys.get_secret_value()
        if not text:
            raise ConfigurationError(
                "POSTIER_SEAL_KEYS: not set. Payloads are sealed at rest: make a key with "
                "`postier doctor --new-seal-key` and give the same one to publishers and workers."
            )
        if text.startswith(("env:", "file:")):
            text = resolve_secret(text, where="POSTIER_SEAL_KEYS")
        return Sealer.from_text(text)

    def egress(self) -> tuple[str, ...]:
        """The entries of `egress_allow`."""
        return tuple(entry.strip() for entry in self.egress_allow.split(",") if entry.strip())

    def registry(self) -> Registry:
        """Accounts and tenants of `accounts_file`; empty without one. Raises ConfigurationError naming the field."""
        from postier.schemas.account import Registry

        return read_registry(self.accounts_file) if self.accounts_file else Registry()


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment. Raises ConfigurationError naming the variable that is wrong."""
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        name, _, reason = describe_first(error).partition(": ")
        raise ConfigurationError(f"POSTIER_{name.upper()}: {reason}") from None


def unknown_variables(settings: Settings) -> Iterator[str]:
    """A sentence for each `POSTIER_…` of the environment that nothing reads: a misspelt one is as good as not set."""
    from difflib import get_close_matches

    known = {f"POSTIER_{name.upper()}" for name in Settings.model_fields}  # these in any case
    for name in sorted(os.environ):
        if not name.startswith("POSTIER_") or name.upper() in known or name in OTHERS or _OF_A_SERVICE.fullmatch(name):
            continue
        if not _is_reference(name, settings):
            near = get_close_matches(name.upper(), (*known, *OTHERS), n=1, cutoff=0.8)
            yield f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _is_reference(name: str, settings: Settings) -> bool:
    """Whether `env:NAME` stands where it may: a secret can have any name."""
    texts = [settings.seal_keys.get_secret_value()]
    if settings.accounts_file:
        try:
            texts.append(settings.accounts_file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError):
            return True  # told elsewhere, and nobody knows what it names
    return any(re.search(rf"\benv:{re.escape(name)}\b", text) for text in texts)


def read_registry(path: Path) -> Registry:
    """Read an accounts file. Raises ConfigurationError with the file, the field and what is wrong with it."""
    import tomllib

    from postier.schemas.account import Registry

    try:
        return _registry_of(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"POSTIER_ACCOUNTS_FILE: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {describe_first(error, Registry)}") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path}: a number has too many digits, or tables are nested too deep") from None


@lru_cache(maxsize=1)
def _registry_of(text: str) -> Registry:
    """Workers look every few seconds; parsing the same text again was most of what an idle one did."""
    import tomllib

    from postier.schemas.account import Registry

    return Registry.model_validate(tomllib.loads(text))


def describe_first(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first problem of a validation error as `field: reason and fix`, without the offending value."""
    from postier.schemas.option_words import first_problem

    return first_problem(error, model)
