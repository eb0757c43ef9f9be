"""What an `exchange` account is configured with, checked before anything is dialled."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from postier.drivers.base import DriverOptions
from postier.drivers.http_options import plain_url, stays_at_home
from postier.drivers.smtp_options import SAFE_ADDRESS

EWS_PATH = "/EWS/Exchange.asmx"

# learn.microsoft.com/exchange/client-developer/web-service-reference/requestserverversion
Version = Literal["Exchange2010_SP2", "Exchange2013", "Exchange2013_SP1", "Exchange2016"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ExchangeOptions(DriverOptions):
    r"""Which server, which login, and whose mailbox.

    `url` is where EWS answers; a host alone gets Exchange's usual path. It must be https (http only to a loopback host
    that `allow_hosts` names). `auth` is `ntlm`, bound to the TLS channel as Extended Protection wants it, or `basic`.
    `username` is DOMAIN\user or user@domain. `mailbox` is the primary address of the mailbox that sends: the login's
    own, one it may send as (`access = "delegate"`), or one it acts as (`access = "impersonation"`). `save_copy` keeps a
    copy in that mailbox's Sent Items. `version` is the schema that is spoken, never guessed: any server from it on
    understands it.

    `timeout_ms` is milliseconds to hand a mail over, connecting and login included; `final_timeout` seconds for the
    verdict after it, long because giving up early makes duplicates. `idle_seconds` is how long a connection may rest.

    `allow_hosts` opens the egress guard, which else lets public hosts through on mail ports alone (hosts, addresses,
    networks, each with an optional `:port`). A resolver handed in through the ports goes before it. `ca_file` replaces
    the system's authorities; there is no way not to verify.
    """

    url: str = Field(max_length=500)
    auth: Literal["ntlm", "basic"] = "ntlm"
    username: str = Field(max_length=320, repr=False)
    password: SecretStr
    mailbox: str = Field(max_length=320)
    access: Literal["delegate", "impersonation"] = "delegate"
    save_copy: bool = False
    version: Version = "Exchange2013_SP1"
    timeout_ms: int = Field(default=30_000, ge=100, le=600_000)
    final_timeout: float = Field(default=120.0, gt=0, le=3_600)
    idle_seconds: float = Field(default=20.0, ge=0, le=3_600)
    ca_file: str | None = None
    allow_hosts: tuple[str, ...] = ()

    @field_validator("url")
    @classmethod
    def _url_is_an_address_alone(cls, value: str) -> str:
        url = plain_url(value)
        return url if urlsplit(url).path else url + EWS_PATH

    @field_validator("username")
    @classmethod
    def _username_has_a_domain(cls, value: str) -> str:
        if _CONTROL.search(value):
            raise ValueError(r"must not contain control characters (TOML wants 'DOMAIN\user' in single quotes)")
        if not re.fullmatch(r"[^\\@:]+\\[^\\:]+|[^\\@:]+@[^\\@:]+", value):
            raise ValueError(r"must be DOMAIN\user or user@domain")
        return value

    @field_validator("password")
    @classmethod
    def _password_is_one_line(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value():
            raise ValueError("must not be empty")
        if _CONTROL.search(value.get_secret_value()):
            raise ValueError("must not contain control characters (a line end copied along?)")
        return value

    @field_validator("mailbox")
    @classmethod
    def _mailbox_is_an_address(cls, value: str) -> str:
        if not SAFE_ADDRESS.fullmatch(value) or not re.fullmatch(r"[^@]+@[^@]+", value):
            raise ValueError("must be one plain address: the mailbox that sends")
        return value

    @model_validator(mode="after")
    def _clear_text_stays_at_home(self) -> ExchangeOptions:
        if not stays_at_home(self.url, self.allow_hosts):
            raise ValueError("url: must be https (http only to a loopback host that allow_hosts names)")
        return self
