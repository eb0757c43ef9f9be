"""A thread that empties the inbox, where producers of any language put envelopes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from postier.ledger.inbox import Inbox
from postier.schemas.account import Registry
from postier.schemas.errors import LedgerUnavailable
from postier.settings.logs import log

_WAIT = 2.0
_AGAIN = 5.0


class Intake(threading.Thread):
    """Publishes what lies in the inbox until `stop`. An outage of Redis delays it and loses nothing."""

    def __init__(self, inbox: Inbox, registry: Callable[[], Registry]) -> None:
        super().__init__(name="postier-intake", daemon=True)
        self._inbox = inbox
        self._registry = registry
        self._stopping = threading.Event()

    def run(self) -> None:
        """Take and publish."""
        while not self._stopping.is_set():
            try:
                _, refused = self._inbox.take(self._registry(), wait=_WAIT)
            except LedgerUnavailable as error:
                self._stopping.wait(error.retry_after)
                continue
            except Exception:  # what was taken stays there; a process that ended of it would take its sends along
                log().exception("inbox.failed")
                self._stopping.wait(_AGAIN)
                continue
            if refused:
                log().warning("event.refused", count=refused, source="inbox")

    def stop(self) -> None:
        """Take nothing more. Calling twice is safe."""
        self._stopping.set()
