"""Relays known by name: where they listen, how one logs in, what they allow. Read once from `providers.csv`.

An empty limit means that no verified figure exists; figures are defaults that an account may override, plans differ.
Every row names its source; `notes` says what comes from a third party.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

from postier.drivers.smtp_options import Auth, Security
from postier.schemas.errors import ConfigurationError

REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-\d{1,2}")

# How the user name follows from the rest, where the vendor says so (SendGrid, Postmark: source_url of their rows).
_FIXED_USERNAMES = {"smtp.sendgrid.net": "apikey"}
_PASSWORDS = {
    "app_password": "an app password made at the provider, not the account's own",
    "smtp_credentials": "the SMTP password, not the AWS secret key",
    "password": "the one that belongs to the user name",
}
_PASSWORD_IS_USERNAME = frozenset({"smtp.postmarkapp.com"})


@dataclass(frozen=True, slots=True)
class Preset:
    """One relay. Rates are mails (or recipients, see `notes`) per second, minute and day; None where unknown.

    `host` may hold `{region}`. `auth_kinds` are what the secret may be: password, app_password, oauth2, api_key, … or
    ip_allowlist for none.
    """

    name: str
    host: str
    port: int
    security: Security
    auth_kinds: tuple[str, ...]
    username_hint: str
    per_second: float | None
    per_minute: float | None
    per_day: int | None
    max_recipients: int | None
    max_connections: int | None
    source_url: str
    notes: str

    @property
    def needs_region(self) -> bool:
        """The host is one of several, by region."""
        return "{region}" in self.host

    @property
    def fixed_username(self) -> str | None:
        """The user name that is the same for everybody."""
        return _FIXED_USERNAMES.get(self.host)

    @property
    def password_is_username(self) -> bool:
        """The secret serves as the user name too."""
        return self.host in _PASSWORD_IS_USERNAME

    @property
    def password_hint(self) -> str:
        """Which of a person's secrets is meant."""
        if "password" in self.username_hint:
            return self.username_hint.partition("password = ")[2] or self.username_hint
        return next((_PASSWORDS[kind] for kind in self.auth_kinds if kind in _PASSWORDS), _PASSWORDS["password"])

    @property
    def may_skip_login(self) -> bool:
        """The relay may know us by our address."""
        return "ip_allowlist" in self.auth_kinds

    @property
    def needs(self) -> tuple[str, ...]:
        """What its user has to give, by the names of options."""
        region = ("region",) if self.needs_region else ()
        name = () if self.fixed_username or self.password_is_username else ("username",)
        return (*region, *name, "OAuth2 (driver microsoft)" if self.auth_kinds == ("oauth2",) else "password")

    def auth(self, *, has_tokens: bool) -> Auth:
        """The login rule: XOAUTH2 where nothing else is taken or a token source is there for it."""
        if "oauth2" in self.auth_kinds and (has_tokens or len(self.auth_kinds) == 1):
            return "xoauth2"
        return "auto"

    def limits(self) -> dict[str, float | int]:
        """The known limits under the names an account uses for them."""
        names = ("per_second", "per_minute", "per_day", "max_recipients", "max_connections")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@cache
def presets() -> Mapping[str, Preset]:
    """Every preset by its name, in the file's order. Read-only."""
    text = resources.files("postier.drivers").joinpath("providers.csv").read_text(encoding="utf-8")
    return MappingProxyType({row["name"]: _preset(row) for row in csv.DictReader(io.StringIO(text))})


def preset(name: str) -> Preset:
    """One preset. Raises ConfigurationError that names the closest ones."""
    known = presets()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(sorted(known))}"
    raise ConfigurationError(f"preset: no provider is named {name[:64]!r}; {hint}")


def _preset(row: Mapping[str, str]) -> Preset:
    return Preset(
        name=row["name"],
        host=row["host"],
        port=int(row["port"]),
        security=_SECURITY[row["security"]],
        auth_kinds=tuple(row["auth"].split("|")),
        username_hint=row["username_hint"],
        per_second=_number(row["per_second"]),
        per_minute=_number(row["per_minute"]),
        per_day=_whole(row["per_day"]),
        max_recipients=_whole(row["max_recipients"]),
        max_connections=_whole(row["max_connections"]),
        source_url=row["source_url"],
        notes=row["notes"],
    )


_SECURITY: dict[str, Literal["starttls", "tls"]] = {"starttls": "starttls", "tls": "tls"}


def _number(text: str) -> float | None:
    return float(text) if text else None


def _whole(text: str) -> int | None:
    return int(text) if text else None
