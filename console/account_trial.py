"""One account, saved or not, tried step by step: without caches, through the egress guard, five times a minute."""

from __future__ import annotations

from functools import partial
from typing import Any

from postier.console.check import Failed, check_driver, show_step
from postier.console.ledger_access import Ledger
from postier.console.output import complain, safe, span
from postier.drivers.base import CheckStep, Driver
from postier.ledger.account_store import may_check
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.account import Account, Registry
from postier.schemas.errors import ConfigurationError, LedgerUnavailable
from postier.settings.sealed_options import open_options
from postier.workers.branding import composed_options, provider_of
from postier.workers.route import build_driver, doors_of, opened_options


def draft_driver(opened: Ledger, account: Account, registry: Registry) -> Driver[Any]:
    """The driver of an account as a worker would build it. Raises ConfigurationError naming the field.

    Options that are not sealed yet count as they are.
    """
    settings = opened.settings
    login = provider_of(account, registry) or account
    # Only what the accounts file says opens the egress guard; trying it with other values does not.
    trusted = settings.registry().accounts.get(login.name) == login
    doors = doors_of(login, trusted=trusted, egress_allow=settings.egress())
    sealer = settings.sealer() if settings.seal_keys.get_secret_value() else None
    tokens = SealedTokenStore(opened.store, sealer, owner=login.tenant or "instance") if sealer else None
    options = composed_options(account, registry, partial(open_options, sealer) if sealer else opened_options)
    return build_driver(account, options=options, doors=doors, token_store=tokens)


def known_accounts(opened: Ledger) -> Registry:
    """Every account; the file's alone while the ledger is away, so that those can be tried all the same."""
    try:
        return opened.registry()
    except LedgerUnavailable as error:
        if opened.settings.accounts_file is None:
            raise
        complain(f"postier: {safe(error)}; only accounts of the file can be checked")
        return opened.settings.registry()


def try_account(
    opened: Ledger, account: Account, registry: Registry, recipient: str | None, *, json_output: bool
) -> None:
    """Run the check and show each step. Raises Failed after a failed step, or when it was tried too often."""
    wait = _wait(opened, account)
    if wait:
        complain(f"postier: account {safe(account.name)} was checked five times within a minute: wait {span(wait)}")
        raise Failed
    try:
        driver = draft_driver(opened, account, registry)
    except ConfigurationError as error:
        step = CheckStep("options", False, 0.0, str(error), "Mend what is named.")
        show_step(account.name, step, json_output=json_output)
        raise Failed from None
    check_driver(driver, account, recipient, json_output=json_output)


def _wait(opened: Ledger, account: Account) -> float:
    try:
        return may_check(opened.store, opened.registry(), account)
    except LedgerUnavailable:
        if account.name in opened.settings.registry().accounts:
            return 0.0
        raise
