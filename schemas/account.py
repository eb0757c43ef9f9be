"""Accounts, tenants and the registry that holds them: the configured ways to send and who may use them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from postier.schemas.address import Address
from postier.schemas.links import check_host_entry, parse_link
from postier.schemas.text import OneLine

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
ShownName = Annotated[str, OneLine(128)]  # it stands in headers
Priority = Literal["urgent", "bulk"]
MOST = 1_000_000_000_000  # above any limit that holds anything; Redis counts exactly far beyond it
LONGEST_COOLDOWN = 31_536_000  # a year; Redis refuses to keep a key for very long, in the middle of a publish


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sender(_Settings):
    """The From identity: an address and the name shown with it."""

    address: Address
    name: ShownName = ""


class Limits(_Settings):
    """What an account may do; None means no limit of that kind.

    Rates count mails per second and per minute. `per_hour` and `per_day` are counted windows; the day starts at
    `day_resets_at` (HH:MM) in `timezone` (IANA name). `counts` says whether those two count mails or recipients.
    `max_connections` caps connections, idle ones too, over all workers; `max_recipients` caps one mail's recipients.
    """

    per_second: float | None = Field(default=None, gt=0, le=10_000)
    per_minute: float | None = Field(default=None, gt=0, le=600_000)
    per_hour: int | None = Field(default=None, gt=0, le=MOST)
    per_day: int | None = Field(default=None, gt=0, le=MOST)
    day_resets_at: Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "00:00"
    timezone: str = "UTC"
    counts: Literal["mails", "recipients"] = "mails"
    max_connections: int = Field(default=8, gt=0, le=10_000)
    max_recipients: int = Field(default=50, gt=0, le=10_000)

    @model_validator(mode="after")
    def _time_zone_exists(self) -> Limits:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"timezone: there is no time zone {self.timezone!r}; give an IANA name") from None
        return self


class Brand(_Settings):
    """How the mail looks: name, logo (https URL) and accent colour (#rrggbb)."""

    name: ShownName = ""
    logo_url: str = Field(default="", max_length=2048, pattern=r"^(https://[^\s\"'<>]+)?$")
    colour: str = Field(default="#1f4e79", pattern=r"^#[0-9a-fA-F]{6}$")

    @field_validator("logo_url")
    @classmethod
    def _logo_is_where_it_seems_to_be(cls, value: str) -> str:
        if value:
            parse_link(value)
        return value


class Account(_Settings):
    """A configured way to send. `tenant` None means it belongs to the instance and any tenant may be routed to it.

    `driver` is a built-in name, an entry point of `postier.drivers`, or `package.module:Class`. `options` are checked
    by the driver; secrets among them are references (`env:NAME`, `file:PATH`) or sealed text, never plain at rest.
    `fallback` names the account that takes over as `overflow` says.
    """

    name: Name
    tenant: Name | None = None
    driver: str = Field(min_length=1, max_length=255)
    sender: Sender
    reply_to: Address | None = None
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    limits: Limits = Limits()
    fallback: Name | None = None
    overflow: Literal["never", "parked", "slow"] = "parked"
    locale: Literal["en", "fr"] = "en"
    brand: Brand = Brand()
    untested: bool = False


class Form(_Settings):
    """A contact form of a tenant: where its messages go, and how many it may send."""

    recipients: tuple[Address, ...] = Field(min_length=1, max_length=20)
    label: ShownName = ""
    account: Name | None = None
    per_hour: int = Field(default=60, gt=0, le=MOST)


class Tenant(_Settings):
    """Whose mail it is. Links in its events may only point to `allowed_hosts`: `host`, `*.host`, `host/path`."""

    name: Name
    allowed_hosts: tuple[str, ...] = ()
    default_account: Name | None = None
    rules: dict[str, Name] = Field(default_factory=dict)
    forms: dict[str, Form] = Field(default_factory=dict)
    locale: Literal["en", "fr"] | None = None
    contact_per_hour: int = Field(default=300, gt=0, le=MOST)
    keep_days: int | None = Field(default=None, ge=1, le=3650)  # of ended deliveries; None: as the instance keeps them
    # kind: seconds, instead of the kind's own; 0 for none
    cooldowns: dict[str, Annotated[int, Field(le=LONGEST_COOLDOWN)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _hosts_are_host_names(self) -> Tenant:
        for host in self.allowed_hosts:
            try:
                check_host_entry(host)
            except ValueError as error:
                raise ValueError(f"allowed_hosts: {host!r}: {error}") from None
        return self


def _named(table: str, key: Any, row: Any) -> Any:
    """The row with its key as its name. One with another name would be looked for under both."""
    name = row.get("name", key) if isinstance(row, dict) else getattr(row, "name", key)
    if name != key:
        raise ValueError(f"{table}: an entry is named otherwise than its key")
    return {**row, "name": key} if isinstance(row, dict) else row


class Registry(_Settings):
    """All accounts and tenants, checked against each other."""

    default_account: Name | None = None
    accounts: dict[str, Account] = Field(default_factory=dict)
    tenants: dict[str, Tenant] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _names_come_from_the_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            for table in ("accounts", "tenants"):
                rows = value.get(table)
                if isinstance(rows, dict):
                    value[table] = {key: _named(table, key, row) for key, row in rows.items()}
        return value

    @model_validator(mode="after")
    def _references_exist(self) -> Registry:
        def known(name: str | None, where: str, tenant: str | None = None) -> None:
            if name is None:
                return
            account = self.accounts.get(name)
            if account is None:
                raise ValueError(f"{where}: no account is named {name!r}")
            if account.tenant is not None and account.tenant != tenant:
                raise ValueError(f"{where}: account {name!r} belongs to tenant {account.tenant!r}")

        known(self.default_account, "default_account")
        for account in self.accounts.values():
            known(account.fallback, f"accounts.{account.name}.fallback", account.tenant)
            if account.tenant is not None and account.tenant not in self.tenants:
                raise ValueError(f"accounts.{account.name}.tenant: no tenant is named {account.tenant!r}")
            self._refuse_fallback_loop(account)
        for tenant in self.tenants.values():
            known(tenant.default_account, f"tenants.{tenant.name}.default_account", tenant.name)
            for kind, name in tenant.rules.items():
                known(name, f"tenants.{tenant.name}.rules.{kind}", tenant.name)
            for form_id, form in tenant.forms.items():
                known(form.account, f"tenants.{tenant.name}.forms.{form_id}.account", tenant.name)
        return self

    def _refuse_fallback_loop(self, account: Account) -> None:
        seen = {account.name}
        current = account
        while current.fallback is not None:
            if current.fallback in seen:
                raise ValueError(f"accounts.{account.name}.fallback: the fallbacks form a loop")
            seen.add(current.fallback)
            current = self.accounts[current.fallback]

    def route(self, *, tenant: str, kind: str, account: str | None = None, form_account: str | None = None) -> Account:
        """The account an event leaves by: its own wish, the tenant's rule or default, the instance's default.

        Raises LookupError with a reason for people when there is none, or when it is another tenant's.
        """
        owner = self.tenants.get(tenant)
        if owner is None:
            raise LookupError(f"no tenant is named {tenant!r}")
        name = account or form_account or owner.rules.get(kind) or owner.default_account or self.default_account
        if name is None:
            raise LookupError(f"tenant {tenant!r} has no account for {kind!r} and there is no default account")
        chosen = self.accounts.get(name)
        if chosen is None or (chosen.tenant is not None and chosen.tenant != tenant):
            raise LookupError(f"tenant {tenant!r} has no account named {name!r}")
        return chosen
