"""What every account of an HTTP API is configured with, checked before anything is dialled."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from postier.drivers.base import DriverOptions

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _one_word(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError("must be one word of ASCII characters (a line end or space copied along?)")
    return value


Key = Annotated[SecretStr, AfterValidator(_one_word)]


def plain_url(value: str) -> str:
    """The URL without a slash at its end. Raises ValueError unless it is http or https, a host and perhaps a path."""
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0 and value.isascii() and value.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in value or parts.scheme not in ("https", "http"):
        raise ValueError("must look like https://host or https://host:port/path")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment")
    return value.rstrip("/")


def stays_at_home(url: str, allow_hosts: tuple[str, ...]) -> bool:
    """Whether the URL is https, or http to a loopback host that `allow_hosts` names."""
    parts = urlsplit(url)
    named = {entry.strip("[]").removesuffix(f":{parts.port}").strip("[]") for entry in allow_hosts}
    return parts.scheme != "http" or (parts.hostname in _LOOPBACK and parts.hostname in named)


class ApiOptions(DriverOptions):
    """How to reach an HTTP API.

    `timeout` is seconds for the whole call, connecting included. `base_url` replaces the provider's own address and
    then passes the egress guard: `https`, or `http` to a loopback host that `allow_hosts` names. `allow_hosts` opens
    the guard, which else lets public hosts through on mail ports alone: a host on 443 must be named there (hosts,
    addresses, networks, each with an optional `:port`). A resolver handed in through the ports goes before it.
    `ca_file` replaces the system's authorities.
    """

    timeout: float = Field(default=30.0, gt=0, le=600)
    base_url: Annotated[str, Field(max_length=500)] | None = None
    allow_hosts: tuple[str, ...] = ()
    ca_file: str | None = None

    @field_validator("base_url")
    @classmethod
    def _base_url_is_an_address_alone(cls, value: str | None) -> str | None:
        return None if value is None else plain_url(value)

    @model_validator(mode="after")
    def _clear_text_stays_at_home(self) -> ApiOptions:
        if not stays_at_home(self.base_url or "", self.allow_hosts):
            raise ValueError("base_url: must be https (http only to a loopback host that allow_hosts names)")
        return self
