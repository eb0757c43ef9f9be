"""The settings of an account as a command line, a file and a keyboard give them."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parseaddr
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import typer
from pydantic import SecretStr, ValidationError

from postier.console.account_flags import Draft, pair
from postier.console.output import safe
from postier.drivers.registry import load_driver
from postier.schemas.account import Account, Tenant
from postier.schemas.errors import ConfigurationError
from postier.settings.config import describe_first
from postier.settings.secrets import is_reference, is_secret_name

Entry = TypeVar("Entry", Account, Tenant)


def applied(draft: Draft, name: str, before: Account | None) -> Account:
    """The account with what was said. Raises ConfigurationError naming the field. May ask at the terminal."""
    row: dict[str, Any] = before.model_dump(mode="json", exclude={"name"}, exclude_defaults=True) if before else {}
    if draft.source is not None:
        _merge(row, _one_account(read_table(draft.source), name))
    for key in ("driver", "tenant", "reply_to", "fallback", "overflow", "locale"):
        value = getattr(draft, key)
        if value is not None:
            row[key] = value or None
    if draft.preset is not None:
        row.setdefault("driver", "provider")
    if draft.sender is not None:
        shown, address = parseaddr(draft.sender)
        row["sender"] = {**row.get("sender", {}), "address": address or draft.sender}
        if shown:
            row["sender"]["name"] = shown
    for key, pairs in (("limits", draft.limit), ("brand", draft.brand)):
        if pairs:
            row[key] = {**row.get(key, {}), **dict(pair(f"--{key.rstrip('s')}", text) for text in pairs)}
            row[key] = {inner: value for inner, value in row[key].items() if value != ""}
    row["options"] = _options(draft, row, before)
    try:
        return Account.model_validate({k: v for k, v in row.items() if v is not None} | {"name": name})
    except ValidationError as error:
        raise ConfigurationError(f"accounts.{name}.{describe_first(error, Account)}") from None


def _options(draft: Draft, row: Mapping[str, Any], before: Account | None) -> dict[str, Any]:
    driver = str(row.get("driver", "smtp"))
    options: dict[str, Any] = dict(row.get("options") or {})
    if before is not None and before.driver != driver:
        options = {key: value for key, value in options.items() if before.options.get(key) != value}
    if draft.preset is not None:
        options["preset"] = draft.preset
    secrets = secret_options(driver)
    lists = _list_options(driver)
    given: dict[str, Any] = {}
    for text in draft.option or ():
        key, value = pair("--option", text)
        if value and (key in secrets or is_secret_name(key)) and not is_reference(value):
            raise ConfigurationError(
                f"--option {key}: a secret on the command line can be read by others; use --secret {key}, "
                f"--secret-stdin {key}, {key}=env:NAME or {key}=file:PATH"
            )
        if key in lists:
            given[key] = [*given.get(key, ()), *filter(None, value.split(","))]
        else:
            given[key] = _table_or_text(value)
    for key in draft.secret or ():
        given[key] = typer.prompt(safe(key), hide_input=True, err=True)
    if draft.secret_stdin is not None:
        given[draft.secret_stdin] = sys.stdin.readline().rstrip("\r\n")
    options |= given
    return {key: value for key, value in options.items() if value not in ("", None, [])}


def _table_or_text(value: str) -> Any:
    """A JSON object as what it says; anything else, a user name with a brace too, as it is: the driver checks it."""
    if value.startswith("{"):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def secret_options(driver: str) -> frozenset[str]:
    """The driver's options whose type says that they are secrets. Raises ConfigurationError for an unknown driver."""
    options = load_driver(driver).Options
    return frozenset(name for name, each in options.model_fields.items() if SecretStr in _types(each.annotation))


def _list_options(driver: str) -> frozenset[str]:
    options = load_driver(driver).Options
    lists = {tuple, list, frozenset}
    return frozenset(name for name, each in options.model_fields.items() if lists & _types(each.annotation))


def _types(annotation: Any) -> set[Any]:
    found = {annotation, get_origin(annotation)}
    for inner in get_args(annotation):
        found |= _types(inner) if isinstance(inner, type) or get_args(inner) else set()
    return found


def read_table(source: str) -> dict[str, Any]:
    """A TOML or JSON table from a file, or from standard input for `-`. Raises ConfigurationError."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{source}: neither TOML nor JSON: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{source}: tables are nested too deep") from None
    return dict(found)


def entries(table: Mapping[str, Any], source: str) -> tuple[dict[str, Account], dict[str, Tenant]]:
    """The accounts and tenants of a table shaped like the accounts file. Raises ConfigurationError."""
    return _rows(table, "accounts", Account, source), _rows(table, "tenants", Tenant, source)


def _rows(table: Mapping[str, Any], name: str, model: type[Entry], source: str) -> dict[str, Entry]:
    found = table.get(name) or {}
    if not isinstance(found, dict):
        raise ConfigurationError(f"{source}: {name} must be a table of names and values")
    rows: dict[str, Entry] = {}
    for key, row in found.items():
        try:
            rows[key] = model.model_validate({**row, "name": key} if isinstance(row, dict) else row)
        except ValidationError as error:
            raise ConfigurationError(f"{source}: {name}.{key}.{describe_first(error, model)}") from None
    return rows


def _one_account(table: dict[str, Any], name: str) -> dict[str, Any]:
    accounts = table.get("accounts")
    if not isinstance(accounts, dict):
        return table
    row = accounts.get(name)
    if not isinstance(row, dict):
        raise ConfigurationError(f"the file has no account named {name!r}; it has {', '.join(accounts) or 'none'}")
    return row


def _merge(row: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(row.get(key), dict):
            row[key] = {**row[key], **value}
        else:
            row[key] = value
