"""From an account's name to everything needed to send by it: its driver and its renderer, made once."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

from pydantic import ValidationError

from postier.drivers.base import Driver, DriverOptions, Ports
from postier.drivers.egress import public_only_resolver
from postier.drivers.registry import load_driver
from postier.schemas.account import Account, Registry
from postier.schemas.email import Mailbox
from postier.schemas.errors import ConfigurationError, RenderError, SenderRefused
from postier.schemas.events import KINDS, Recipient
from postier.settings.config import describe_first
from postier.settings.secrets import resolve_options
from postier.workers.render import Renderer


@dataclass(frozen=True, slots=True)
class Way:
    """One account, ready to send."""

    account: Account
    driver: Driver[DriverOptions]
    renderer: Renderer


def build_driver(account: Account) -> Driver[DriverOptions]:
    """The account's driver with checked options and opened secrets. Raises ConfigurationError naming the field."""
    where = f"accounts.{account.name}.options"
    driver = load_driver(account.driver)
    options = resolve_options(account.options, where=where)
    try:
        checked = driver.Options.model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(f"{where}.{describe_first(error)}") from None
    allowed = tuple(getattr(checked, "allow_hosts", ()))
    idle = max(1, account.limits.max_connections)
    sender = Mailbox(account.sender.address, account.sender.name)
    return driver(checked, sender=sender, ports=Ports(resolve=public_only_resolver(allowed), idle_sessions=idle))


class Roster:
    """The ways to send of one worker process. Thread-safe; drivers are built at their first use."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._lock = threading.Lock()
        self._ways: dict[str, Way] = {}

    def way(self, name: str) -> Way:
        """The way of an account. Raises SenderRefused when it is unknown here or its options are wrong."""
        found = self._ways.get(name)
        if found is not None:
            return found
        account = self.registry.accounts.get(name)
        if account is None:
            raise SenderRefused(f"account {name} is not configured on this worker")
        with self._lock:
            if name not in self._ways:
                try:
                    self._ways[name] = Way(account, build_driver(account), Renderer(account))
                except ConfigurationError as error:
                    raise SenderRefused(str(error)) from None
            return self._ways[name]

    def warm_up(self, seconds: float = 2.0) -> None:
        """Build and render once what first mails would wait for, within `seconds`; errors show when mail is sent."""
        until = time.monotonic() + seconds
        for name, account in self.registry.accounts.items():
            for kind, event in KINDS.items():
                if time.monotonic() > until:
                    return
                recipient = Recipient(address=account.sender.address, locale=account.locale)
                with contextlib.suppress(SenderRefused, RenderError):
                    self.way(name).renderer.render(
                        event.example(), kind=kind, tenant="-", recipient=recipient, delivery_id="-", message_id="<->"
                    )

    def close(self) -> None:
        """Close every driver. Calling twice is safe."""
        with self._lock:
            for way in self._ways.values():
                way.driver.close()
            self._ways.clear()
