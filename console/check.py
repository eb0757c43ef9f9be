"""One account, tried step by step, and the steps as people or programs read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from postier.console.output import safe, say, say_json, span
from postier.drivers.base import CheckStep, Driver
from postier.schemas.account import Account
from postier.schemas.errors import PostierError
from postier.settings.logs import where


class Failed(Exception):
    """A step of the check failed; it was shown."""


def check_driver(driver: Driver[Any], account: Account, recipient: str | None, *, json_output: bool) -> None:
    """Run the driver's check, show each step as it ends, close the driver. Raises Failed after a failed step."""
    try:
        if not json_output:
            say(f"account {safe(account.name)} ({safe(account.driver)})")
        for step in _steps(driver, recipient):
            show_step(account.name, step, json_output=json_output)
            if not step.ok:
                raise Failed
    finally:
        driver.close()


def _steps(driver: Driver[Any], recipient: str | None) -> Iterator[CheckStep]:
    try:
        yield from driver.check(test_recipient=recipient)
    except PostierError:
        raise
    except Exception as error:  # a driver of somebody else's; its words may hold a secret
        yield CheckStep("options", False, 0.0, f"the driver failed: {where(error)}", "Tell the author of the driver.")


def show_step(name: str, step: CheckStep, *, json_output: bool) -> None:
    """One step, for people or programs."""
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
