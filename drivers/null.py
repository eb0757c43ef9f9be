"""The `null` driver: takes every mail and drops it. For load tests and for environments that must not send.

A complete sample account:

    [accounts.nowhere]
    driver = "null"
    sender = { address = "no-reply@example.org", name = "Example" }

It has no options.
"""

from __future__ import annotations

from collections.abc import Iterator

from postier.drivers.base import CheckStep, Driver, DriverOptions
from postier.schemas.email import Email
from postier.schemas.receipt import Receipt


class NullOptions(DriverOptions):
    """None."""


class NullDriver(Driver[NullOptions]):
    """Gives a receipt for every mail; nothing leaves."""

    Options = NullOptions

    def send(self, email: Email) -> Receipt:
        """Drop one mail."""
        return Receipt(provider_id=email.message_id, text="dropped")

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """There is nothing to try but the options."""
        yield CheckStep("options", True, 0.0, "every mail is dropped")
