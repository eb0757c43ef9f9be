"""Branded accounts: which provider they send through, and whose name the mail bears until the sender is confirmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from postier.ledger.merged import Confirmed
from postier.schemas.account import Account, Registry, Sender
from postier.schemas.address import address_key
from postier.schemas.errors import ConfigurationError

BRANDED = "branded"


def provider_of(account: Account, registry: Registry) -> Account | None:
    """The account a branded one sends through: its option `through`, else the instance's default account.

    None for other drivers. Raises ConfigurationError when there is none, or when it may not be used.
    """
    if account.driver != BRANDED:
        return None
    where = f"accounts.{account.name}.options.through"
    name = account.options.get("through") or registry.default_account
    found = registry.accounts.get(str(name)) if name else None
    if found is None or found.tenant not in (None, account.tenant):
        hint = "name one, or set a default account" if not name else f"there is no account {name!r} for this tenant"
        raise ConfigurationError(f"{where}: {hint}")
    if found.driver == BRANDED:
        raise ConfigurationError(f"{where}: account {name!r} is branded itself")
    return found


def as_sent(account: Account, registry: Registry, confirmed: Confirmed) -> Account:
    """The account as its mail leaves now.

    A branded sender whose owner has not confirmed it gives way to the provider's, with the brand's name shown and
    answers going to the brand.
    """
    try:
        provider = provider_of(account, registry)
    except ConfigurationError:
        return account  # it cannot send at all; building its driver says why
    if provider is None or (account.tenant, address_key(account.sender.address)) in confirmed:
        return account
    name = account.sender.name or account.brand.name or provider.sender.name
    return account.model_copy(
        update={
            "sender": Sender(address=provider.sender.address, name=name),
            "reply_to": account.reply_to or account.sender.address,
        }
    )


def composed_options(
    account: Account, registry: Registry, open_options: Callable[[Account], dict[str, Any]]
) -> dict[str, Any]:
    """The opened options a driver is built with; a branded account takes its provider's driver and options along.

    Raises ConfigurationError naming the option.
    """
    options = open_options(account)
    provider = provider_of(account, registry)
    if provider is None:
        return options
    return {**options, "through": provider.name, "driver": provider.driver, "options": open_options(provider)}
