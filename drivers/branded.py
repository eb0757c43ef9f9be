"""The `branded` driver: the provider with the sender of a brand.

A complete sample account, beside an instance account `default` that can send:

    [accounts.shop]
    driver = "branded"
    tenant = "shop"
    sender = { address = "hello@shop.example", name = "The Shop" }
    [accounts.shop.options]
    through = "default"                # the account it sends through; the instance's default account without it

`postier senders add hello@shop.example --tenant shop` asks the owner of the address for a confirmation. Until it came,
mail leaves from the sender of `default` with the brand's name, and answers go to the brand; that is decided before it
comes here. `driver` and `options` are those of the account in `through`: whoever builds the driver fills them in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from postier.drivers.base import CheckStep, Driver, DriverOptions, Ports, Result
from postier.drivers.registry import load_driver
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import ConfigurationError
from postier.schemas.receipt import Receipt


class BrandedOptions(DriverOptions):
    """What to send through."""

    through: str | None = None
    driver: str = "provider"
    options: SerializeAsAny[DriverOptions] = Field(repr=False)

    @field_validator("driver")
    @classmethod
    def _driver_exists_and_is_another(cls, value: str) -> str:
        if value == "branded":
            raise ValueError("a branded account cannot send through a branded one")
        try:
            load_driver(value)
        except ConfigurationError as error:
            raise ValueError(str(error).removeprefix("driver: ")) from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _options_are_the_driver_s(cls, value: Any) -> Any:
        if not isinstance(value, dict) or isinstance(value.get("options"), DriverOptions):
            return value
        name = value.get("driver", "provider")
        try:
            wrapped = load_driver(name) if isinstance(name, str) and name != "branded" else None
        except ConfigurationError:
            wrapped = None
        if wrapped is None:
            return {**value, "options": DriverOptions()}  # the driver's own validator says what is wrong with it
        try:
            return {**value, "options": wrapped.Options.model_validate(value.get("options", {}))}
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"options.{field}: {first['msg'].removeprefix('Value error, ')}") from None

    @property
    def allow_hosts(self) -> tuple[str, ...]:
        """The doors in the egress guard of what is sent through."""
        return tuple(getattr(self.options, "allow_hosts", ()))


class BrandedDriver(Driver[BrandedOptions]):
    """Another driver, with the brand as the sender."""

    Options = BrandedOptions

    def __init__(self, options: BrandedOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        self._wrapped: Driver[Any] = load_driver(options.driver)(options.options, sender=sender, ports=self.ports)

    @property
    def announces_handover(self) -> bool:  # type: ignore[override]
        """Whether the wrapped driver does."""
        return self._wrapped.announces_handover

    def send(self, email: Email) -> Receipt:
        """One mail, one attempt."""
        return self._wrapped.send(email)

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Several mails; see the wrapped driver."""
        return self._wrapped.converse(emails)

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """The steps of the wrapped driver, with the brand's address as the sender."""
        return self._wrapped.check(test_recipient=test_recipient)

    def idle_connections(self) -> int:
        """Those of the wrapped driver."""
        return self._wrapped.idle_connections()

    def close_idle(self, *, keep: int | None = None) -> None:
        """Close idle sessions; see Driver.close_idle."""
        self._wrapped.close_idle(keep=keep)

    def close(self) -> None:
        """Give back what the wrapped driver holds."""
        self._wrapped.close()
