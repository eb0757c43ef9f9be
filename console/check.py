"""One account, tried step by step, and the steps as people or programs read them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from postier.console.output import safe, say, say_json, span
from postier.drivers.base import CheckStep
from postier.schemas.account import Account
from postier.schemas.errors import ConfigurationError
from postier.workers.route import build_driver


class Failed(Exception):
    """A step of the check failed; it was shown."""


def check_account(
    account: Account, recipient: str | None, *, doors: Collection[str] = (), json_output: bool
) -> None:
    """Run the driver's check and show each step as it ends; `doors` as `doors_of` gives them. Raises Failed."""
    try:
        driver = build_driver(account, doors=doors)
    except ConfigurationError as error:
        step = CheckStep("options", False, 0.0, str(error), "Mend the option that is named.")
        _show(account.name, step, json_output=json_output)
        raise Failed from None
    try:
        if not json_output:
            say(f"account {safe(account.name)} ({safe(account.driver)})")
        for step in driver.check(test_recipient=recipient):
            _show(account.name, step, json_output=json_output)
            if not step.ok:
                raise Failed
    finally:
        driver.close()


def _show(name: str, step: CheckStep, *, json_output: bool) -> None:
    if json_output:
        say_json(
            {"account": name, **{("step" if key == "name" else key): value for key, value in asdict(step).items()}}
        )
        return
    details = ", ".join(f"{key} {value}" for key, value in step.details.items() if value)
    words = "  ".join(part for part in (step.words, details) if part)
    say(f"  {'ok  ' if step.ok else 'FAIL'}  {step.name:<10} {span(step.seconds):>7}  {safe(words)}".rstrip())
    if step.advice:
        say(f"        {safe(step.advice)}")
