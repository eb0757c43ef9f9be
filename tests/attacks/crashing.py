"""A driver of a third party that breaks every promise: its exceptions tell all it knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import SecretStr

from postier.drivers.base import CheckStep, Driver, DriverOptions, Ports, Result
from postier.schemas.email import Email, Mailbox


class CrashingOptions(DriverOptions):
    """`when` it fails: `sending`, `handed over`, or `made`."""

    password: SecretStr
    when: str = "sending"


class CrashingDriver(Driver[CrashingOptions]):
    """Raises with everything it holds in the words and in its local names."""

    Options = CrashingOptions
    announces_handover = True

    def __init__(self, options: CrashingOptions, *, sender: Mailbox, ports: Ports | None = None) -> None:
        super().__init__(options, sender=sender, ports=ports)
        if options.when == "made":
            raise ValueError(f"cannot log in with {options.password.get_secret_value()}")

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """One step, then the secret in an exception."""
        yield CheckStep("options", True, 0.0)
        raise RuntimeError(self.options.password.get_secret_value())

    def converse(self, emails: Iterable[Email]) -> Iterator[tuple[Email, Result]]:
        """Fails with the secret and the mail in the exception, its cause and its notes."""
        password = self.options.password.get_secret_value()
        for email in emails:
            if self.options.when == "handed over":
                email.handing_over()
            told = f"{password} {email.recipients} {email.text} {email.mime!r}"
            try:
                raise KeyError(told)
            except KeyError as cause:
                error = RuntimeError(told)
                error.add_note(told)
                raise error from cause
        yield from ()
