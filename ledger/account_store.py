"""Accounts and tenants kept in the ledger beside the accounts files: added, edited and removed while postier runs.

Secrets are sealed before they are written and never come out again but in a worker. What a file defines is read-only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from postier.ledger.book import Book, Change, ChangedMeanwhile, Page
from postier.ledger.merged import UNREADABLE, Merged, merge
from postier.ledger.store import Store
from postier.schemas.account import Account, Registry, Tenant
from postier.schemas.errors import ConfigurationError
from postier.settings.config import describe_first
from postier.settings.seal import Sealer
from postier.settings.sealed_options import is_sealed, reseal_options, seal_options
from postier.settings.secrets import is_reference, mask_options

CHECKS_A_MINUTE = 5
# They write where postier runs, or deliver to nobody.
_OPERATORS_DRIVERS = frozenset({"file", "memory", "null"})
_TABLES = {"a:": "accounts", "t:": "tenants"}


@dataclass(frozen=True, slots=True)
class Put:
    """One account or tenant to write; `seen` is the version it was read at (0: it is new; None: whatever it is now).

    `secret` names options that are secrets though their names do not say so.
    """

    entry: Account | Tenant
    seen: int | None = 0
    secret: frozenset[str] = field(default=frozenset())


class AccountStore:
    """Changes in the name of `who`. `files` are the accounts of files, which win and cannot be changed here.

    `trusted` False is for people who act for one tenant: references to environment and files, doors in the egress
    guard and drivers by import path are refused then. All raise LedgerUnavailable; changes raise ConfigurationError
    (ChangedMeanwhile when somebody else was faster) and then nothing is written.
    """

    def __init__(self, store: Store, files: Registry, *, who: str, sealer: Sealer, trusted: bool = True) -> None:
        self._book = Book(store)
        self._store = store
        self._files = files
        self._who = who[:80]
        self._sealer = sealer
        self._trusted = trusted

    def merged(self) -> Merged:
        """Files and book together, as workers see them."""
        return merge(self._files, self._book.read())

    def version(self, entry: str) -> int:
        """The version of `a:<account>` or `t:<tenant>`; 0 when there is none."""
        return self._book.read().version_of(entry)

    def history(self, entry: str) -> list[dict[str, Any]]:
        """The last changes of `a:<account>` or `t:<tenant>`, oldest first, without secrets."""
        return self._book.history(entry)

    def put(self, *puts: Put, what: str = "") -> Merged:
        """Write accounts and tenants, all or none; returns the registry afterwards."""

        def work(page: Page) -> Change:
            written: dict[str, dict[str, Any] | None] = {}
            details: dict[str, Any] = {}
            for one in puts:
                name = _field(one.entry)
                self._guard(page, name, one.seen)
                written[name] = self._content(one)
                details[name] = {"changes": _differences(_data(page, name), written[name] or {})}
            fact = what or _fact(page, list(written))
            return Change(written, fact, ", ".join(one.entry.name for one in puts), details, len(puts))

        return self._change(work)

    def remove(self, entry: str, *, seen: int | None = None) -> Merged:
        """Remove `a:<account>` or `t:<tenant>`. Mail that waits in its lane stays there, parked, until it expires."""

        def work(page: Page) -> Change:
            self._guard(page, entry, seen)
            if entry not in page.raw:
                raise ConfigurationError(f"{_noun(entry)} {entry[2:]!r} is not stored: there is nothing to remove")
            return Change({entry: None}, f"{_noun(entry)}.removed", entry[2:])

        return self._change(work)

    def set_default(self, account: str | None) -> Merged:
        """The instance's default account. Raises ConfigurationError when a file names one."""

        def work(_: Page) -> Change:
            if self._files.default_account is not None:
                raise ConfigurationError("default_account: the accounts file names it; change it there")
            data = {"account": account} if account is not None else None
            return Change({"default": data}, "default.changed", account or "")

        return self._change(work)

    def amend_tenant(self, name: str, change: Callable[[Tenant], Tenant], *, seen: int | None = None) -> Merged:
        """Change one stored tenant as it is now; it is made when there is none of this name."""

        def work(page: Page) -> Change:
            entry = f"t:{name}"
            self._guard(page, entry, seen)
            before = _data(page, entry)
            try:
                after = _dump(change(Tenant.model_validate({**before, "name": name})))
            except ValidationError as error:
                raise ConfigurationError(f"tenants.{name}.{describe_first(error, Tenant)}") from None
            return Change({entry: after}, _fact(page, [entry]), name, {"changes": _differences(before, after)})

        return self._change(work)

    def export(self, *, sealed: bool = False) -> dict[str, Any]:
        """Everything stored as one accounts file holds it; secrets are left out, or stay sealed when asked for."""
        page = self._book.read()
        accounts = {name: dict(_data(page, f"a:{name}")) for name in page.names("a:")}
        for row in accounts.values():
            if not sealed:
                row["options"] = {k: v for k, v in row.get("options", {}).items() if not is_sealed(v)}
        tenants = {name: _data(page, f"t:{name}") for name in page.names("t:")}
        default = _data(page, "default").get("account")
        return {**({"default_account": default} if default else {}), "accounts": accounts, "tenants": tenants}

    def reseal(self) -> int:
        """Seal every secret anew with the first seal key, so that an older key can go; returns how many accounts."""
        count = 0

        def work(page: Page) -> Change | None:
            nonlocal count
            written: dict[str, dict[str, Any] | None] = {}
            for name in page.names("a:"):
                row = _data(page, f"a:{name}")
                if any(is_sealed(value) for value in row.get("options", {}).values()):
                    written[f"a:{name}"] = {**row, "options": reseal_options(self._sealer, name, row["options"])}
            count = len(written)
            return Change(written, "accounts.resealed", "", {}, count) if written else None

        self._book.change(self._who, work)
        return count

    # --- one change

    def _change(self, work: Callable[[Page], Change]) -> Merged:
        def checked(page: Page) -> Change:
            change = work(page)
            raw = {**page.raw}
            for name, data in change.put.items():
                raw.pop(name, None)
                if data is not None:
                    raw[name] = json.dumps({"data": data})
            before = merge(self._files, page).problems
            for where, reason in merge(self._files, Page(0, raw)).problems.items():
                if before.get(where) != reason:
                    raise ConfigurationError(f"{where}: {reason}" if where else reason)
            return change

        return merge(self._files, self._book.change(self._who, checked))

    def _guard(self, page: Page, entry: str, seen: int | None) -> None:
        table = getattr(self._files, _TABLES[entry[:2]])
        name = entry[2:]
        if name in table:
            raise ConfigurationError(
                f"{_noun(entry)} {name!r} is written in the accounts file: it is read-only here, change it there"
            )
        there = page.version_of(entry)
        if seen is None or seen == there:
            return
        if seen == 0:
            raise ConfigurationError(f"{_noun(entry)} {name!r} exists already: edit it, or choose another name")
        if there == 0:
            raise ChangedMeanwhile(f"{_noun(entry)} {name!r} does not exist, or was removed meanwhile")
        raise ChangedMeanwhile(
            f"{_noun(entry)} {name!r} was changed meanwhile (it is at version {there}, you saw {seen}): "
            "look at it again, then repeat"
        )

    def _content(self, put: Put) -> dict[str, Any]:
        if isinstance(put.entry, Tenant):
            return _dump(put.entry)
        account = put.entry
        if not self._trusted:
            _refuse_privileges(account)
        if account.driver == UNREADABLE:
            raise ConfigurationError(f"accounts.{account.name}.driver: {UNREADABLE!r} is no driver")
        data = _dump(account)
        data["options"] = seal_options(self._sealer, account.name, account.options, secret=put.secret)
        return data


def may_check(store: Store, known: Registry, account: Account) -> float:
    """Count one check of the account; seconds to wait when it had five within a minute, else 0.

    Names that are not known share one count a tenant: invented names do not make a scanner. Raises LedgerUnavailable.
    """
    key = f"a:{account.name}" if account.name in known.accounts else f"t:{account.tenant or ''}"
    return float(store.run("allow", (f"checks:{key}", CHECKS_A_MINUTE, 60_000_000))) / 1e6


def _refuse_privileges(account: Account) -> None:
    where = f"accounts.{account.name}"
    if ":" in account.driver or account.driver in _OPERATORS_DRIVERS:
        raise ConfigurationError(f"{where}.driver: only drivers that reach a provider may be chosen here")
    for name, value in account.options.items():
        if (name == "allow_hosts" or name.endswith("_file")) and value:
            raise ConfigurationError(f"{where}.options.{name}: only an operator may set it")
        if any(is_reference(text) for text in _texts(value)):
            raise ConfigurationError(f"{where}.options.{name}: references (env:, file:) are for operators")


def _texts(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, (list, tuple)):
        return [text for inner in value for text in _texts(inner)]
    return (value,)


def _field(entry: Account | Tenant) -> str:
    return f"{'a' if isinstance(entry, Account) else 't'}:{entry.name}"


def _noun(entry: str) -> str:
    return "account" if entry.startswith("a:") else "tenant"


def _fact(page: Page, written: Collection[str]) -> str:
    first = next(iter(written))
    return f"{_noun(first)}.{'edited' if first in page.raw else 'added'}"


def _dump(entry: Account | Tenant) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)


def _data(page: Page, entry: str) -> dict[str, Any]:
    try:
        found = page.entry(entry)
    except ValueError:
        return {}
    return found.data if found else {}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Field by field what was and what is; secrets show only that they changed."""
    if not prefix:
        before, after = _masked(before), _masked(after, before)
    found: dict[str, Any] = {}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old or {}, dict) and isinstance(new or {}, dict):
            found |= _differences(old or {}, new or {}, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = [old, new]
    return found


def _masked(row: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    options, known = row.get("options"), (before or {}).get("options") or {}
    if not isinstance(options, dict):
        return dict(row)
    shown = mask_options(options)
    for name, value in options.items():
        if before is not None and shown[name] != value and known.get(name) != value:
            shown[name] = f"{shown[name]} (new)"
    return {**row, "options": shown}
