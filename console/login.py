"""`postier accounts login`: a person consents once, by device code, and the login is kept sealed in the ledger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from postier.console.output import NEGATIVE, complain, safe, say, say_json

if TYPE_CHECKING:
    from postier.drivers.microsoft_tokens import DeviceLogin

_POLL_SECONDS = 1.0


def log_in(name: str, *, json_output: bool) -> None:
    """Show the code, wait for the person, store the login and wake the account. Exit 1 when it was declined."""
    from postier.console.account_trial import draft_driver
    from postier.console.ledger_access import ledger
    from postier.schemas.errors import ConfigurationError, DeliveryError

    with ledger() as opened:
        account = opened.registry().accounts.get(name)
        if account is None:
            raise ConfigurationError(f"no account is named {name!r}")
        driver: Any = draft_driver(opened, account, opened.registry())
        if not hasattr(driver, "device_login"):
            raise ConfigurationError(f"accounts.{name}.driver: {account.driver!r} needs no person's login")
        try:
            login = driver.device_login()
            _show(login.begin(), json_output=json_output)
            _wait(login)
        except DeliveryError as error:
            complain(f"postier: {safe(error.text)}")
            raise typer.Exit(NEGATIVE) from None
        finally:
            driver.close()
        opened.manage().resume(name)
    if json_output:
        say_json({"account": name, "state": "ready"})
    else:
        say(f"account {safe(name)} is logged in and ready")


def _show(code: Any, *, json_output: bool) -> None:
    if json_output:
        say_json(
            {"user_code": code.user_code, "verification_uri": code.verification_uri, "expires_at": code.expires_at}
        )
    else:
        say(f"Open {safe(code.verification_uri)} in a browser and enter the code {safe(code.user_code)}")


def _wait(login: DeviceLogin) -> None:
    from postier.schemas.errors import TemporaryError

    while True:
        try:
            if login.poll():
                return
        except TemporaryError as error:
            complain(f"postier: {safe(error.text)}; still trying")
        time.sleep(_POLL_SECONDS)
