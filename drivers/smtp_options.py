"""What an `smtp` account is configured with, checked before anything is dialled."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from postier.drivers.base import DriverOptions

Security = Literal["starttls", "tls", "none"]
Auth = Literal["auto", "plain", "login", "xoauth2", "none"]

USUAL_PORTS: dict[str, int] = {"starttls": 587, "tls": 465, "none": 25}
SAFE_ADDRESS = re.compile(r"[^\x00-\x20\x7f-\xa0<>\\\"(),:;\[\]\u2028\u2029]{1,320}")

_HOST = re.compile(r"[^\x00-\x20\x7f/\\@#?<>\"']{1,253}")
_EHLO = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f.:IPv]{2,60}\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SmtpOptions(DriverOptions):
    """How to reach and enter one SMTP server.

    `security`: `starttls` is required and never falls back, `tls` speaks TLS from the first octet, `none` is plain and
    must be asked for; a password over it needs `allow_plain_login`. Without `port` it is 587, 465 or 25; port 465
    alone means `tls`. `auth` `auto` takes XOAUTH2 when the account has a token source, else PLAIN, else LOGIN.
    `xoauth2` without a token source takes `password` as the access token.

    `timeout_ms` is milliseconds per reply; `connect_timeout` seconds for all addresses together; `total_deadline`
    seconds for one mail up to its final dot; `final_timeout` seconds for the verdict after it, long because giving up
    early makes duplicates (RFC 5321 section 4.5.3.2.6: ten minutes).

    `allow_hosts` opens the egress guard for hosts, addresses or networks, each with an optional `:port`. It counts only
    when no resolver is handed in through the ports: an instance's own guard cannot be opened by an account.
    """

    host: str
    port: int = Field(default=587, ge=1, le=65535)
    security: Security = "starttls"
    auth: Auth = "auto"
    username: Annotated[str, StringConstraints(max_length=320)] | None = Field(default=None, repr=False)
    password: SecretStr | None = None
    allow_plain_login: bool = False
    timeout_ms: int = Field(default=30_000, ge=100, le=600_000)
    connect_timeout: float = Field(default=15.0, gt=0, le=120)
    total_deadline: float = Field(default=120.0, gt=0, le=3_600)
    final_timeout: float = Field(default=600.0, gt=0, le=3_600)
    ehlo_name: str | None = None
    envelope_from: str | None = None
    ca_file: str | None = None
    allow_hosts: tuple[str, ...] = ()
    max_mails_per_session: int = Field(default=100, ge=1, le=100_000)
    idle_seconds: float = Field(default=60.0, ge=0, le=3_600)

    @model_validator(mode="before")
    @classmethod
    def _port_and_security_complete_each_other(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if value.get("security") is None:
            value["security"] = "tls" if str(value.get("port")) == "465" else "starttls"
        if value.get("port") is None:
            value["port"] = USUAL_PORTS.get(str(value["security"]), 587)
        return value

    @field_validator("host")
    @classmethod
    def _host_is_one_name(cls, value: str) -> str:
        value = value.strip().rstrip(".")
        if value.startswith("[") and value.endswith("]"):
            value = value[1:-1]
        if not _HOST.fullmatch(value) or value.startswith("."):
            raise ValueError("must be one host name or address, without scheme, path, user or port")
        if value.count(":") == 1:
            raise ValueError("must not carry the port: put it into 'port'")
        return value

    @field_validator("ehlo_name")
    @classmethod
    def _ehlo_name_is_one_word(cls, value: str | None) -> str | None:
        if value is not None and not _EHLO.fullmatch(value):
            raise ValueError("must be a host name or an address literal like [192.0.2.1]")
        return value

    @field_validator("envelope_from")
    @classmethod
    def _envelope_sender_is_an_address(cls, value: str | None) -> str | None:
        if value and ("@" not in value or not SAFE_ADDRESS.fullmatch(value)):
            raise ValueError("must be a plain address without angle brackets, spaces or control characters")
        return value

    @field_validator("username")
    @classmethod
    def _username_has_no_control_characters(cls, value: str | None) -> str | None:
        if value is not None and _CONTROL.search(value):
            raise ValueError("must not contain control characters")
        return value or None

    @field_validator("password")
    @classmethod
    def _password_has_no_control_characters(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and _CONTROL.search(value.get_secret_value()):
            raise ValueError("must not contain control characters (a line end copied along?)")
        return value

    @model_validator(mode="after")
    def _login_is_whole(self) -> SmtpOptions:
        if self.auth == "none" and (self.username or self.password):
            raise ValueError("auth: 'none' does not go with a username or password; remove one of both")
        if self.password is not None and not self.username:
            raise ValueError("username: missing, though a password is set")
        if self.auth in ("plain", "login") and (not self.username or self.password is None):
            raise ValueError(f"auth: {self.auth!r} needs a username and a password")
        if self.auth == "xoauth2" and not self.username:
            raise ValueError("username: xoauth2 needs the mailbox that is sent from")
        if self.security == "none" and self.logs_in and not self.allow_plain_login:
            raise ValueError(
                "security: 'none' shows the password to the network; use 'starttls' or 'tls', or say allow_plain_login"
            )
        return self

    @property
    def logs_in(self) -> bool:
        """A login takes place."""
        return self.auth != "none" and self.username is not None
