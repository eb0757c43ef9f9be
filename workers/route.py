"""From an account's name to everything needed to send by it: its driver and its renderer, made once."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from postier.drivers.base import Driver, DriverOptions, Ports, TokenStore
from postier.drivers.egress import public_only_resolver
from postier.drivers.registry import load_driver
from postier.ledger.logins import Turns
from postier.ledger.merged import Confirmed
from postier.schemas.account import Account, Limits, Registry
from postier.schemas.email import Mailbox
from postier.schemas.errors import AccountError, ConfigurationError, PostierError
from postier.schemas.events import KINDS, Recipient
from postier.settings.config import describe_first
from postier.settings.logs import log
from postier.settings.secrets import resolve_options
from postier.workers.branding import as_sent, composed_options, provider_of
from postier.workers.logins import AnyTime, LoginGate
from postier.workers.render import Renderer

_UNKNOWN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Way:
    """One account, ready to send."""

    account: Account
    driver: Driver[DriverOptions]
    renderer: Renderer


def opened_options(account: Account) -> dict[str, Any]:
    """The account's options with its secrets. Raises ConfigurationError naming the one that cannot be had."""
    return resolve_options(account.options, where=f"accounts.{account.name}.options")


def with_default_limits(account: Account) -> Account:
    """The account with its driver's limits where it sets none of its own."""
    try:
        defaults = load_driver(account.driver).default_limits(account.options)
    except ConfigurationError:
        return account  # it says so when it is built
    given = account.limits.model_dump(exclude_unset=True)
    if defaults.keys() <= given.keys():
        return account
    return account.model_copy(update={"limits": Limits.model_validate({**defaults, **given})})


def doors_of(account: Account, *, trusted: bool, egress_allow: Collection[str] = ()) -> tuple[str, ...]:
    """What the egress guard lets this account through to besides public mail servers.

    An account's own `allow_hosts` count only when it is `trusted`: written by the platform, not by a tenant.
    """
    own = account.options.get("allow_hosts", ()) if trusted else ()
    return (*egress_allow, *(own if isinstance(own, (list, tuple)) else ()))


def build_driver(
    account: Account,
    *,
    doors: Collection[str] = (),
    options: Mapping[str, Any] | None = None,
    logins: Turns | None = None,
    token_store: TokenStore | None = None,
) -> Driver[DriverOptions]:
    """The account's driver with checked options and opened secrets; `doors` as `doors_of` gives them.

    Raises ConfigurationError naming the field.
    """
    where = f"accounts.{account.name}.options"
    try:
        driver = load_driver(account.driver)
    except ConfigurationError as error:
        raise ConfigurationError(f"accounts.{account.name}.{error}") from None
    try:
        checked = driver.Options.model_validate(opened_options(account) if options is None else dict(options))
    except ValidationError as error:
        raise ConfigurationError(f"{where}.{describe_first(error, driver.Options)}") from None
    try:
        resolve = public_only_resolver(doors)
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{where}.{error}") from None
    ports = Ports(
        resolve=resolve,
        idle_sessions=max(1, account.limits.max_connections),
        token_store=token_store,
        logins=LoginGate(logins or AnyTime()).attempt,
    )
    try:
        return driver(checked, sender=Mailbox(account.sender.address, account.sender.name), ports=ports)
    except ConfigurationError as error:
        whole = str(error).startswith("driver: ")  # what is missing is no option
        raise ConfigurationError(f"accounts.{account.name}.{error}" if whole else f"{where}.{error}") from None
    except PostierError:
        raise
    except Exception as error:  # a driver of somebody else's; its words may hold a secret
        raise ConfigurationError(f"accounts.{account.name}.driver: cannot be made: {type(error).__name__}") from None


class Roster:
    """The ways to send of one worker process. Thread-safe; drivers are built at their first use.

    `source` reads the accounts; `refresh` looks again and rebuilds what changed, secrets included. `key` fingerprints
    the secrets. `logins(account, credential)` gives the turns to log in, `tokens(tenant)` where its
    OAuth2 login is kept. `open_options` opens an account's secrets; `confirmed` are the senders whose owner said yes.
    `trusted(account)` says whether the platform wrote it (`doors_of`); `egress_allow` opens the guard for everybody.
    """

    def __init__(
        self,
        source: Callable[[], Registry],
        *,
        key: bytes = b"",
        logins: Callable[[str, str], Turns] = lambda _, __: AnyTime(),
        tokens: Callable[[str], TokenStore] | None = None,
        open_options: Callable[[Account], dict[str, Any]] = opened_options,
        confirmed: Callable[[], Confirmed] = frozenset,
        trusted: Callable[[str], bool] = lambda _: False,
        egress_allow: Collection[str] = (),
    ) -> None:
        self._source = source
        self._open_options = open_options
        self._confirmed = confirmed
        self._trusted = trusted
        self._egress_allow = egress_allow
        self._key = key
        self._logins = logins
        self._tokens = tokens
        self._lock = threading.Lock()
        self._ways: dict[str, Way] = {}
        self._problems: dict[str, str] = {}
        self._sending: dict[str, Account] = {}
        self._unseen = False
        self.registry = Registry()
        self.credentials: dict[str, str] = {}
        self._load(source())

    def refresh(self) -> bool:
        """Look at accounts and secrets again; True when something changed. What cannot be read stays as it was."""
        unseen, self._unseen = self._unseen, False
        return self._look_again() or unseen

    def _look_again(self) -> bool:
        try:
            return self._load(self._source())
        except ConfigurationError as error:
            if self._problems.get("") != str(error):
                self._problems[""] = str(error)
                log().error("accounts.unreadable", reason=str(error))
            return False

    def _load(self, registry: Registry) -> bool:
        registry = registry.model_copy(
            update={"accounts": {name: with_default_limits(account) for name, account in registry.accounts.items()}}
        )
        confirmed = self._confirmed()
        sending = {name: as_sent(account, registry, confirmed) for name, account in registry.accounts.items()}
        credentials = {name: self._credential(account, registry) for name, account in sending.items()}
        changed = {
            name
            for name in {*sending, *self._sending}
            if sending.get(name) != self._sending.get(name) or credentials.get(name) != self.credentials.get(name)
        }
        same = not changed and registry == self.registry
        with self._lock:
            self.registry, self.credentials, self._sending = registry, credentials, sending
            gone = [self._ways.pop(name) for name in changed if name in self._ways]
        self._problems.pop("", None)
        for way in gone:
            way.driver.close()
        return not same

    def _credential(self, account: Account, registry: Registry) -> str:
        """A keyed fingerprint of everything the account connects and logs in with."""
        try:
            options = composed_options(account, registry, self._open_options)
            text = json.dumps([account.driver, options, self._doors(account, registry)], sort_keys=True, default=str)
            self._problems.pop(account.name, None)
        except ConfigurationError as error:
            text = str(error)
            if self._problems.get(account.name) != text:
                self._problems[account.name] = text
                log().error("account.incomplete", account=account.name, reason=text)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:16]

    def _doors(self, account: Account, registry: Registry) -> tuple[str, ...]:
        login = provider_of(account, registry) or account
        return doors_of(login, trusted=self._trusted(login.name), egress_allow=self._egress_allow)

    def way(self, name: str) -> Way:
        """The way of an account. Raises AccountError when it is unknown here or its options are wrong."""
        found = self._ways.get(name)
        if found is not None:
            return found
        if name not in self._sending and self._look_again():
            self._unseen = True  # a new account's first mail is faster than the next refresh
        with self._lock:
            account = self._sending.get(name)
            if account is None:
                # Another worker may know it: no mail of it is at fault, and the account need not rest for long.
                raise AccountError(f"account {name} is not configured on this worker", until=_UNKNOWN_SECONDS)
            if name not in self._ways:
                try:
                    login = provider_of(account, self.registry) or account
                    driver = build_driver(
                        account,
                        doors=self._doors(account, self.registry),
                        options=composed_options(account, self.registry, self._open_options),
                        logins=self._logins(name, self.credentials.get(name, "")),
                        token_store=self._tokens(login.tenant or "instance") if self._tokens else None,
                    )
                    self._ways[name] = Way(account, driver, Renderer(account))
                except ConfigurationError as error:
                    raise AccountError(str(error)) from None
            return self._ways[name]

    def idle_connections(self, name: str) -> int:
        """How many connections this process keeps open for an account between conversations."""
        way = self._ways.get(name)
        return way.driver.idle_connections() if way else 0

    def close_idle(self, name: str, *, keep: int | None = None) -> None:
        """Close idle connections of an account: those that are old or dead, or until at most `keep` are left."""
        way = self._ways.get(name)
        if way:
            way.driver.close_idle(keep=keep)

    def warm_up(self, seconds: float = 2.0) -> None:
        """Build and render once what first mails would wait for, within `seconds`; errors show when mail is sent."""
        until = time.monotonic() + seconds
        for name, account in self.registry.accounts.items():
            for kind, event in KINDS.items():
                if time.monotonic() > until:
                    return
                recipient = Recipient(address=account.sender.address, locale=account.locale)
                # One kind or template that is broken must not keep everybody's mail.
                with contextlib.suppress(Exception):
                    self.way(name).renderer.render(
                        event.example(), kind=kind, tenant="-", recipient=recipient, delivery_id="-", message_id="<->"
                    )

    def close(self) -> None:
        """Close every driver. Calling twice is safe."""
        with self._lock:
            for way in self._ways.values():
                way.driver.close()
            self._ways.clear()
