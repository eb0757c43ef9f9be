"""Accounts and tenants of the files and of the book as one registry: the files win, and no entry takes others down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from postier.ledger.book import Book, Page
from postier.ledger.store import Store, translated
from postier.schemas.account import Account, Registry, Sender, Tenant
from postier.schemas.address import address_key
from postier.schemas.errors import ConfigurationError, LedgerUnavailable
from postier.settings.config import describe_first
from postier.settings.logs import log

# The driver of accounts that stand in for unreadable ones: there is none of this name, so their mail waits, parked.
UNREADABLE = "unreadable"

Confirmed = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Merged:
    """The registry of files and book. `problems` say by entry (`accounts.office`) what could not be taken as it is.

    `confirmed` holds tenant and address key of every sender whose owner confirmed it.
    """

    registry: Registry
    stored_accounts: frozenset[str] = frozenset()
    stored_tenants: frozenset[str] = frozenset()
    problems: dict[str, str] = field(default_factory=dict)
    confirmed: Confirmed = frozenset()


def merge(files: Registry, page: Page) -> Merged:
    """Put files and book together. Never raises: what does not fit is left out or cut, and told in `problems`.

    An account that cannot be read is replaced by one that cannot send, so that its mail waits instead of leaving by
    another account.
    """
    merging = _Merging(files, page)
    merging.settle()
    return merging.merged()


class _Merging:
    def __init__(self, files: Registry, page: Page) -> None:
        self.files = files
        self.page = page
        self.problems: dict[str, str] = {}
        self.accounts: dict[str, Account] = {}
        self.tenants: dict[str, Tenant] = {}
        self.missing: set[str] = set()  # named by a tenant and nowhere to be found; a stand-in keeps its mail
        for name in page.names("a:"):
            if name in files.accounts:
                self.problems[f"accounts.{name}"] = "the accounts file has one of this name, which wins"
                continue
            self.accounts[name] = self._account(name)
        for name in page.names("t:"):
            if name in files.tenants:
                self.problems[f"tenants.{name}"] = "the accounts file has one of this name, which wins"
                continue
            self._tenant(name)

    def _account(self, name: str) -> Account:
        try:
            entry = self.page.entry(f"a:{name}")
            return Account.model_validate({**(entry.data if entry else {}), "name": name})
        except ValidationError as error:
            self.problems[f"accounts.{name}"] = describe_first(error, Account)
        except ValueError:
            self.problems[f"accounts.{name}"] = "the entry cannot be read"
        return stand_in(name)

    def _tenant(self, name: str) -> None:
        try:
            entry = self.page.entry(f"t:{name}")
            self.tenants[name] = Tenant.model_validate({**(entry.data if entry else {}), "name": name})
        except ValidationError as error:
            self.problems[f"tenants.{name}"] = describe_first(error, Tenant)
        except ValueError:
            self.problems[f"tenants.{name}"] = "the entry cannot be read"

    def settle(self) -> None:
        """Cut what points nowhere, until nothing does; each round removes something, so it ends."""
        while self._drop_tenants() or self._drop_accounts():
            pass
        self._cut_fallbacks()

    def _known(self, name: str) -> Account | None:
        return self.files.accounts.get(name) or self.accounts.get(name)

    def _drop_tenants(self) -> bool:
        for tenant in list(self.tenants.values()):
            for where, name in references(tenant):
                account = self._known(name)
                if account is None or name in self.missing:
                    self.problems[f"tenants.{tenant.name}.{where}"] = f"no account is named {name!r}"
                    shared = account is not None and account.tenant != tenant.name
                    self.accounts[name] = stand_in(name, None if shared else tenant.name)
                    self.missing.add(name)
                elif account.tenant not in (None, tenant.name):
                    # Without this reference its mail would leave by the default account: rather none leaves.
                    self.problems[f"tenants.{tenant.name}.{where}"] = f"account {name!r} belongs to another tenant"
                    del self.tenants[tenant.name]
                    return True
        return False

    def _drop_accounts(self) -> bool:
        gone = [
            account
            for account in self.accounts.values()
            if account.tenant is not None and account.tenant not in self.tenants | self.files.tenants
        ]
        for account in gone:
            self.problems[f"accounts.{account.name}.tenant"] = f"no tenant is named {account.tenant!r}"
            del self.accounts[account.name]
        return bool(gone)

    def _cut_fallbacks(self) -> None:
        for account in list(self.accounts.values()):
            reason = self._wrong_fallback(account)
            if reason:
                self.problems[f"accounts.{account.name}.fallback"] = reason
                self.accounts[account.name] = account.model_copy(update={"fallback": None})

    def _wrong_fallback(self, account: Account) -> str:
        seen, current = {account.name}, account
        while current.fallback is not None:
            found = self._known(current.fallback)
            if found is None or found.name in self.missing:
                return f"no account is named {current.fallback!r}" if current is account else ""
            if found.tenant not in (None, account.tenant) and current is account:
                return f"account {found.name!r} belongs to another tenant"
            if found.name in seen:
                return "the fallbacks form a loop"
            seen.add(found.name)
            current = found
        return ""

    def _default(self) -> str | None:
        if self.files.default_account is not None:
            return self.files.default_account
        try:
            entry = self.page.entry("default")
        except ValueError:
            entry = None
        name = entry.data.get("account") if entry else None
        if not isinstance(name, str):
            return None
        account = self._known(name)
        if account is None or name in self.missing:
            self.problems["default_account"] = f"account {name!r} does not exist"
            return None
        if account.tenant is not None:
            self.problems["default_account"] = f"account {name!r} belongs to a tenant"
            return None
        return name

    def merged(self) -> Merged:
        try:
            registry = Registry(
                default_account=self._default(),
                accounts={**self.files.accounts, **self.accounts},
                tenants={**self.files.tenants, **self.tenants},
            )
        except ValidationError as error:  # a rule that is not known here: the files alone still work
            return Merged(self.files, problems={**self.problems, "": describe_first(error)})
        return Merged(
            registry, frozenset(self.accounts), frozenset(self.tenants), self.problems, frozenset(_confirmed(self.page))
        )


def references(tenant: Tenant) -> Iterator[tuple[str, str]]:
    """Each account a tenant names, with the field that names it."""
    if tenant.default_account is not None:
        yield "default_account", tenant.default_account
    for kind, name in tenant.rules.items():
        yield f"rules.{kind}", name
    for form_id, form in tenant.forms.items():
        if form.account is not None:
            yield f"forms.{form_id}.account", form.account


def stand_in(name: str, tenant: str | None = None) -> Account:
    """An account that cannot send and keeps its mail."""
    return Account(name=name, tenant=tenant, driver=UNREADABLE, sender=Sender(address="unreadable@account.invalid"))


def _confirmed(page: Page) -> Iterator[tuple[str, str]]:
    for name in page.names("s:"):
        try:
            entry = page.entry(f"s:{name}")
        except ValueError:
            continue
        if entry and entry.data.get("state") == "confirmed":
            yield str(entry.data.get("tenant")), address_key(str(entry.data.get("address")))


def merged_registry(files: Registry, store: Store) -> Registry:
    """The registry of files and book together. Raises LedgerUnavailable."""
    return merge(files, Book(store).read()).registry


def published_files(store: Store) -> Registry:
    """What workers told the ledger of their accounts files, without driver options. Raises LedgerUnavailable."""
    with translated():
        files, everything = store.redis.hmget(store.key("registry"), "files", "text")
    if files or not everything:
        return Registry.model_validate_json(files) if files else Registry()
    known, page = Registry.model_validate_json(everything), Book(store).read()  # told by an older version
    accounts = {name: row for name, row in known.accounts.items() if f"a:{name}" not in page.raw}
    tenants = {name: row for name, row in known.tenants.items() if f"t:{name}" not in page.raw}
    return known.model_copy(update={"accounts": accounts, "tenants": tenants})


class RegistrySource:
    """The merged registry for workers: files read each time, the book only when it changed. Thread-safe.

    While the ledger is away the book stays as it was; before it was ever read, `known` is False and only the files'
    accounts are there. Raises ConfigurationError when the files are wrong.
    """

    def __init__(self, files: Callable[[], Registry], store: Store) -> None:
        self._files = files
        self._book = Book(store)
        self._lock = threading.Lock()
        self._page = Page(0, {})
        self._told: dict[str, str] = {}
        self.known = False
        self.files = Registry()
        self.confirmed: Confirmed = frozenset()

    def __call__(self) -> Registry:
        files = self._files()
        with self._lock:
            if self.files.accounts and not (files.accounts or files.tenants):
                raise ConfigurationError(
                    "the accounts file has neither accounts nor tenants any more: taken as not yet written; "
                    "restart the workers if that is meant"
                )
            self.files = files
            try:
                if not self.known or self._book.version() != self._page.version:
                    self._page = self._book.read()
                self.known = True
            except LedgerUnavailable:
                pass
            merged = merge(files, self._page)
            self.confirmed = merged.confirmed
            if merged.problems != self._told:
                self._told = merged.problems
                for where, reason in merged.problems.items():
                    log().error("account.refused", where=where, reason=reason)
            return merged.registry
