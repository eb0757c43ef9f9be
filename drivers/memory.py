"""The `memory` driver: keeps the mails of this process, for tests of applications.

A complete sample account:

    [accounts.test]
    driver = "memory"
    sender = { address = "no-reply@example.org", name = "Example" }
    [accounts.test.options]
    box = "default"       # accounts that name the same box share it
    keep = 1000           # mails; the oldest go first

A test reads `box("default").mails()` in the process that sends, and empties it with `clear()`;
`fail_with(RateLimited("slow down"))` makes the next mail end so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from pydantic import Field

from postier.drivers.base import CheckStep, Driver, DriverOptions
from postier.schemas.email import Email
from postier.schemas.errors import DeliveryError
from postier.schemas.receipt import Receipt


class Box:
    """The mails of one name, newest last. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mails: deque[Email] = deque()
        self._failures: deque[DeliveryError] = deque()

    def mails(self) -> list[Email]:
        """A copy of what is there."""
        with self._lock:
            return list(self._mails)

    def fail_with(self, *errors: DeliveryError) -> None:
        """Let the next mails end with these errors, one each."""
        with self._lock:
            self._failures.extend(errors)

    def clear(self) -> None:
        """Forget every mail and every error to come. Calling twice is safe."""
        with self._lock:
            self._mails.clear()
            self._failures.clear()

    def put(self, email: Email, keep: int) -> None:
        """Keep one mail, and no more than `keep` in all. Raises the error that was asked for."""
        with self._lock:
            if self._failures:
                raise self._failures.popleft()
            self._mails.append(email)
            while len(self._mails) > keep:
                self._mails.popleft()


_boxes: dict[str, Box] = {}
_making = threading.Lock()


def box(name: str = "default") -> Box:
    """The box of a name, the same in the whole process; made when first asked for."""
    with _making:
        return _boxes.setdefault(name, Box())


class MemoryOptions(DriverOptions):
    """The box, and how many mails it keeps."""

    box: str = Field(default="default", min_length=1, max_length=64)
    keep: int = Field(default=1000, ge=1, le=100_000)


class MemoryDriver(Driver[MemoryOptions]):
    """Puts mails into a box of this process."""

    Options = MemoryOptions

    def send(self, email: Email) -> Receipt:
        """Keep one mail."""
        box(self.options.box).put(email, self.options.keep)
        return Receipt(provider_id=email.message_id, text="kept in memory")

    def check(self, *, test_recipient: str | None = None) -> Iterator[CheckStep]:
        """There is nothing to try but the options."""
        yield CheckStep("options", True, 0.0, f"mails are kept in the box {self.options.box!r}")
