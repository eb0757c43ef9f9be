"""The `provider` driver: the relay of a known provider, by the name of its preset.

A complete sample account:

    [accounts.default]
    driver = "provider"
    sender = { address = "no-reply@example.org", name = "Example" }
    [accounts.default.options]
    preset = "ses"                     # a name out of drivers/providers.csv
    region = "eu-west-1"               # only where the host has regions
    username = "AKIA..."               # see the preset's username_hint; SendGrid and Postmark need none
    password = "env:SES_SMTP_PASSWORD"

`host`, `port`, `security` and `auth` override the preset; `ca_file`, `allow_hosts`, `allow_plain_login`, `timeout_ms`,
`total_deadline`, `ehlo_name` and `envelope_from` are those of the `smtp` driver, which does the sending.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field, SecretStr, field_validator, model_validator

from postier.drivers.base import CheckStep, Driver, DriverOptions, Ports, Result
from postier.drivers.presets import REGION, Preset, preset
from postier.drivers.smtp import SmtpDriver
from postier.drivers.smtp_options import Auth, Security, SmtpOptions
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError
from postier.schemas.receipt import Receipt

_SANE = 100  # connections; what a provider's whole platform takes is no default for one account
_OWN = frozenset({"preset", "region"})


class ProviderOptions(DriverOptions):
    """Which relay, and the login there. What is left None follows the preset."""

    preset: str
    username: str | None = Field(default=None, repr=False)  # some providers take the secret as the name
    password: SecretStr | None = None
    region: str | None = Field(default=None, description="for example eu-west-1")
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    security: Security | None = None
    auth: Auth | None = None
    timeout_ms: int | None = None
    total_deadline: float | None = None
    final_timeout: float | None = None
    ehlo_name: str | None = None
    envelope_from: str | None = None
    ca_file: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_plain_login: bool = False

    @field_validator("preset")
    @classmethod
    def _preset_is_known(cls, value: str) -> str:
        try:
            preset(value)
        except ConfigurationError as error:
            raise ValueError(str(error).removeprefix("preset: ")) from None
        return value

    @field_validator("region")
    @classmethod
    def _region_has_the_form_of_one(cls, value: str | None) -> str | None:
        if value is not None and not REGION.fullmatch(value):
            raise ValueError("must look like eu-west-1")
        return value

    @model_validator(mode="after")
    def _what_the_preset_needs_is_there(self) -> ProviderOptions:
        chosen = preset(self.preset)
        if chosen.needs_region and not (self.region or self.host):
            raise ValueError(f"region: {self.preset} needs one, for example eu-west-1")
        if self.auth != "none" and chosen.password_is_username and not (self.username or self.password):
            raise ValueError(f"password: {self.preset} needs one: {chosen.password_hint}")
        if self.auth != "none" and not chosen.may_skip_login and self._username(chosen) is None:
            raise ValueError(f"username: {self.preset} needs one: {chosen.username_hint}")
        self.smtp_options()
        return self

    def smtp_options(self, *, has_tokens: bool = False) -> SmtpOptions:
        """The options of the `smtp` driver that reach this relay."""
        chosen = preset(self.preset)
        username = self._username(chosen)
        given: dict[str, Any] = {
            name: value
            for name in type(self).model_fields
            if name not in _OWN and (value := getattr(self, name)) is not None
        }
        known = {
            "host": chosen.host.replace("{region}", self.region or ""),
            "port": chosen.port,
            "security": chosen.security,
            "auth": chosen.auth(has_tokens=has_tokens) if username or self.password else "none",
        }
        if username:
            known["username"] = username
        return SmtpOptions.model_validate(known | given)

    def _username(self, chosen: Preset) -> str | None:
        if self.username or self.auth == "none":
            return self.username
        if chosen.password_is_username and self.password is not None:
            return self.password.get_secret_value()
        return chosen.fixed_username


class ProviderDriver(Driver[ProviderOptions]):
    """Sends through the preset's relay; everything else is the `smtp` driver's."""

    Options = ProviderOptions
    announces_handover = True

    @classmethod
    def default_limits(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the preset's provider is known to allow its smallest plan; a larger plan says so in its account."""
        try:
            known = preset(str(options.get("preset", ""))).limits()
        except ConfigurationError:
            return {}
        return {name: int(value) for name, value in known.items() if name != "max_connections" or value <= _SANE}

    def __init__(self, options: ProviderOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        smtp = options.smtp_options(has_tokens=self.ports.tokens is not None and options.password is None)
        if smtp.auth == "xoauth2" and options.password is None and self.ports.tokens is None:
            raise ConfigurationError(
                f"preset: {options.preset} takes OAuth2 alone: use the driver microsoft, which fetches its tokens"
            )
        if smtp.logs_in and options.password is None and self.ports.tokens is None:
            raise ConfigurationError(f"password: {options.preset} needs one: {preset(options.preset).password_hint}")
        self._smtp = SmtpDriver(smtp, sender=sender, ports=self.ports)

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        return self._smtp.send(email)

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Several mails over one session; see SmtpDriver.converse."""
        return self._smtp.converse(emails)

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """The steps of the `smtp` driver, against the preset's relay."""
        return self._smtp.check(test_recipient=test_recipient)

    def close(self) -> None:
        """Close the idle sessions."""
        self._smtp.close()
