"""What the doctor looks at in accounts: those of the file and those kept in the ledger, as workers will see them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from postier.console.doctor_finding import Finding
from postier.ledger.book import Book
from postier.ledger.merged import UNREADABLE, Merged, merge, published_files
from postier.ledger.store import Store
from postier.schemas.account import Account, Registry
from postier.schemas.errors import ConfigurationError
from postier.settings.config import Settings
from postier.settings.sealed_options import open_options
from postier.settings.secrets import is_secret_name
from postier.workers.branding import composed_options, provider_of
from postier.workers.route import build_driver, doors_of, opened_options

_SHOWN = 20  # findings; a platform may keep thousands of accounts
_OPTION = re.compile(r"accounts\.([^.:]+)\.options\.(\w+)")


def readable_file(settings: Settings) -> Iterator[Finding]:
    """A finding when the accounts file cannot be read."""
    try:
        settings.registry()
    except ConfigurationError as error:
        yield Finding("accounts", "fail", str(error), "Mend the accounts file.")


def examine_file(settings: Settings) -> Iterator[Finding]:
    """The accounts file alone, for it needs no ledger."""
    if unreadable := list(readable_file(settings)):
        yield from unreadable
        return
    registry = settings.registry()
    known = Merged(registry)
    wrong = _limited([found for account in registry.accounts.values() for found in _examine(account, known, settings)])
    yield from wrong
    if registry.accounts and not any(found.result == "fail" for found in wrong):
        words = f"{len(registry.accounts)} accounts, {len(registry.tenants)} tenants in the file; options are valid"
        yield Finding("accounts", "ok", words)


def examine_stored(store: Store, settings: Settings) -> Iterator[Finding]:
    """The accounts and tenants kept in the ledger, beside those of the file. Raises LedgerUnavailable."""
    try:
        files = settings.registry() if settings.accounts_file else published_files(store)
    except ConfigurationError:
        return  # was told of the file already; without it nobody knows what points nowhere
    merged = merge(files, Book(store).read())
    registry = merged.registry
    if not registry.accounts or not registry.tenants:
        missing = "account" if not registry.accounts else "tenant"
        hint = "`postier accounts add`" if missing == "account" else "`postier tenants set`"
        yield Finding("accounts", "warn", f"there is no {missing}", f"Nothing can be published yet: {hint}.")
    wrong = [_problem(where, reason, files) for where, reason in merged.problems.items()]
    for name in sorted(merged.stored_accounts):
        wrong.extend(_examine(registry.accounts[name], merged, settings))
    shown = _limited(wrong)
    yield from shown
    if merged.stored_accounts and not any(found.result == "fail" for found in shown):
        words = f"{len(merged.stored_accounts)} accounts, {len(merged.stored_tenants)} tenants in the ledger; "
        yield Finding("accounts", "ok", words + "options are valid and secrets open")


def _limited(found: list[Finding]) -> list[Finding]:
    """The failures first, and no screen full of them."""
    ordered = sorted(dict.fromkeys(found), key=lambda one: one.result != "fail")
    if len(ordered) <= _SHOWN:
        return ordered
    left = ordered[_SHOWN:]
    words = f"and {len(left)} findings more"
    return [*ordered[:_SHOWN], Finding("accounts", left[0].result, words, "Mend those first, then look again.")]


def _examine(account: Account, known: Merged, settings: Settings) -> Iterator[Finding]:
    """Build what a worker would build, without connecting."""
    if account.driver == UNREADABLE:
        return  # a stand-in, whose reason is told as a problem
    stored = account.name in known.stored_accounts
    opened = _opener(settings) or (None if stored else opened_options)
    if opened is None:
        return
    try:
        login = provider_of(account, known.registry) or account
        doors = doors_of(login, trusted=login.name not in known.stored_accounts, egress_allow=settings.egress())
        driver = build_driver(account, doors=doors, options=composed_options(account, known.registry, opened))
    except ConfigurationError as error:
        words = str(error)
        if not words.startswith("accounts."):
            words = f"accounts.{account.name}.{words}"
        yield Finding("accounts", "fail", words, _mending(account.name, words, stored=stored))
        return
    place = f"with `postier accounts edit {account.name}`" if stored else "in the accounts file"
    then = f"Change it {place}, then `postier accounts check {account.name}`."
    try:
        for sentence in driver.warnings() if login is account else ():  # a provider's are told once, of itself
            yield Finding("accounts", "warn", f"accounts.{account.name}: {sentence}", then)
    finally:
        driver.close()


def _opener(settings: Settings) -> Callable[[Account], dict[str, Any]] | None:
    """What opens sealed options; None without good seal keys, which is a finding of its own."""
    try:
        return partial(open_options, settings.sealer())
    except ConfigurationError:
        return None


def _mending(name: str, words: str, *, stored: bool) -> str:
    if not stored:
        return f"Mend it in the accounts file, then `postier accounts check {name}`."
    found = _OPTION.match(words)
    owner, field = (found[1], found[2]) if found else (name, "")
    if "seal key" in words:
        return (
            "Give POSTIER_SEAL_KEYS the key it was sealed with back, or enter the secret again: "
            f"`postier accounts edit {owner} --secret {field}`."
        )
    if not found:
        return f"Mend it with `postier accounts edit {name}`."
    change = f"--secret {field}" if is_secret_name(field) else f"-o {field}=VALUE"
    return f"`postier accounts edit {owner} {change}` mends it; `-o {field}=` takes the option away."


def _problem(where: str, reason: str, files: Registry) -> Finding:
    """One entry that workers cannot take as it stands in the ledger."""
    words = f"{where}: {reason}" if where else reason
    table, _, rest = where.partition(".")
    name, _, field = rest.partition(".")
    if where in ("accounts." + name, "tenants." + name) and name in getattr(files, table, {}):
        return Finding("accounts", "warn", words, "The stored one does nothing: rename it in the file, or leave it.")
    return Finding("accounts", "fail", words, _advice(table, name, field))


def _advice(table: str, name: str, field: str) -> str:
    if table == "default_account":
        return "Name another: `postier accounts default NAME`."
    if table == "accounts" and field == "fallback":
        return (
            "It has no fallback meanwhile: "
            f"`postier accounts edit {name} --fallback OTHER`, or `--fallback ''` for none."
        )
    if table == "accounts" and field == "tenant":
        return f"Its mail waits: make the tenant with `postier tenants set`, or `postier accounts remove {name}`."
    if table == "accounts":
        return f"Its mail waits: `postier accounts remove {name}`, then `postier accounts add {name}` anew."
    if field.startswith("rules."):
        return f"Name another: `postier accounts rules {name} {field.removeprefix('rules.')}=ACCOUNT`."
    if field == "default_account":
        return f"Name another: `postier accounts default ACCOUNT --tenant {name}`."
    return f"Mend the tenant with `postier tenants set {name}`." if table == "tenants" else ""
