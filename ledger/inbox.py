"""The inbox: any language publishes with one RPUSH of an envelope's JSON; workers bring it over the hard edge.

What is in the inbox is not sealed and not yet accepted: it is both as soon as a worker has taken it, in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from postier.ledger.publish import Accepted, Admitted, Publisher, admit_and_route
from postier.ledger.store import Store, translated
from postier.schemas.account import Registry
from postier.schemas.edge import read_envelope
from postier.schemas.errors import InvalidEvent, LedgerUnavailable
from postier.settings.seal import Sealer, Unsealable

_BATCH = 200
_KEPT = 10_000
_CONTEXT = b"inbox:refused"


@dataclass(frozen=True, slots=True)
class Refused:
    """What the hard edge refused from the inbox: when (Redis microseconds), why, and its bytes."""

    at: int
    error: dict[str, Any]
    raw: bytes


def open_refused(sealer: Sealer, row: bytes) -> bytes:
    """The bytes of a refused envelope, from its line in the ledger. Raises Unsealable."""
    return sealer.open(row.partition(b"\n")[2], _CONTEXT)


class Inbox:
    """Takes envelopes from the inbox and publishes them. Crashing half-way is harmless: publishing is idempotent."""

    def __init__(self, store: Store, sealer: Sealer, publisher: Publisher) -> None:
        self._store = store
        self._sealer = sealer
        self._publisher = publisher
        self._inbox = store.key("inbox")
        self._taken = store.key("inbox:taken")
        self._refused = store.key("inbox:refused")

    def take(self, registry: Registry, *, wait: float) -> tuple[int, int]:
        """Wait up to `wait` seconds for envelopes and publish what is there; returns (accepted, refused).

        When nothing comes, what a dead worker had taken is published instead. Raises LedgerUnavailable; what was taken
        stays taken then.
        """
        redis = self._store.redis
        with translated():
            first = redis.blmove(self._inbox, self._taken, wait, "LEFT", "RIGHT")
            if first is None:
                raws = redis.lrange(self._taken, 0, _BATCH - 1)
            else:
                pipe = redis.pipeline(transaction=False)
                for _ in range(_BATCH - 1):
                    pipe.lmove(self._inbox, self._taken, "LEFT", "RIGHT")
                raws = [first, *filter(None, pipe.execute())]
        return self._publish(raws, registry) if raws else (0, 0)

    def _publish(self, raws: Sequence[bytes], registry: Registry) -> tuple[int, int]:
        admitted: list[tuple[bytes, Admitted]] = []
        refused: list[tuple[bytes, InvalidEvent]] = []
        for raw in raws:
            try:
                admitted.append((raw, admit_and_route(read_envelope(raw), registry)))
            except InvalidEvent as error:
                refused.append((raw, error))
        done: list[bytes] = []
        answers = self._publisher.publish([event for _, event in admitted]) if admitted else []
        for (raw, _), answer in zip(admitted, answers, strict=True):
            if isinstance(answer, Accepted):
                done.append(raw)
            elif isinstance(answer, InvalidEvent):
                refused.append((raw, answer))
        self._put_away(done, refused)
        if len(done) + len(refused) < len(raws):
            raise LedgerUnavailable("the ledger is busy: what is in the inbox waits", retry_after=1.0)
        return len(done), len(refused)

    def _put_away(self, done: Sequence[bytes], refused: Sequence[tuple[bytes, InvalidEvent]]) -> None:
        at = self._store.now() if refused else 0
        with translated():
            pipe = self._store.redis.pipeline(transaction=True)
            for raw, error in refused:
                head = json.dumps({"at": at, "error": error.as_dict()}).encode()
                pipe.lpush(self._refused, head + b"\n" + self._sealer.seal(raw, _CONTEXT))
            if refused:
                pipe.ltrim(self._refused, 0, _KEPT - 1)
            for raw in [*done, *(raw for raw, _ in refused)]:
                pipe.lrem(self._taken, 1, raw)
            pipe.execute()

    def refused(self, limit: int = 100) -> list[Refused]:
        """What was refused, newest first, with its bytes when our keys open them."""
        with translated():
            rows = self._store.redis.lrange(self._refused, 0, limit - 1)
        found = []
        for row in rows:
            head = row.partition(b"\n")[0]
            facts = json.loads(head)
            try:
                raw = open_refused(self._sealer, row)
            except Unsealable:
                raw = b""
            found.append(Refused(facts["at"], facts["error"], raw))
        return found
