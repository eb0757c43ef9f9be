"""The inbox: any language publishes with one RPUSH of an envelope's JSON; workers bring it over the hard edge.

What is in the inbox is not sealed and not yet accepted: it is both as soon as a worker has taken it, in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
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
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Refused:
    """What the hard edge refused from the inbox: its id, when (Redis microseconds), why, and its bytes.

    `raw` is empty when no key of ours opens it.
    """

    id: str
    at: int
    error: dict[str, Any]
    raw: bytes

    def named(self, member: str) -> str:
        """What the envelope says of itself at `id`, `kind` or `tenant`; empty when that is no plain word."""
        try:
            value = json.loads(self.raw)[member]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


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


def inbox_counts(store: Store) -> tuple[int, int]:
    """How many events wait to be taken, and how many refused ones are kept (the last 10,000 are). Raises
    LedgerUnavailable.
    """
    with translated():
        pipe = store.redis.pipeline(transaction=False)
        for name in ("inbox", "inbox:taken", "inbox:refused"):
            pipe.llen(store.key(name))
        waiting, taken, refused = pipe.execute()
    return waiting + taken, refused


class RefusedEvents:
    """What was refused from the inbox, for people: why, once more, or for good. All raise LedgerUnavailable."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer
        self._refused = store.key("inbox:refused")

    def find(self, limit: int = _KEPT) -> list[Refused]:
        """The latest first, at most `limit`."""
        return [one for _, one in self._rows(limit)]

    def retry(self, ids: Iterable[str]) -> dict[str, str]:
        """Put these back into the inbox, by id: `done`, `sealed` (no key of ours opens it) or `unknown`.

        Calling twice is safe: one that is there no longer is `unknown`.
        """
        return self._take(ids, back=True)

    def discard(self, ids: Iterable[str]) -> dict[str, str]:
        """Remove these for good, by id: `done` or `unknown`. Calling twice is safe."""
        return self._take(ids, back=False)

    def _take(self, ids: Iterable[str], *, back: bool) -> dict[str, str]:
        answers = dict.fromkeys(ids, "unknown")
        chosen = [(row, one) for row, one in self._rows(_KEPT) if one.id in answers]
        for start in range(0, len(chosen), _BATCH):
            page = [(row, one) for row, one in chosen[start : start + _BATCH] if one.raw or not back]
            args = [part for row, one in page for part in (row, one.raw if back else b"")]
            done = self._store.run("refused", (len(page), *args))
            for (_, one), was_there in zip(page, done, strict=True):
                answers[one.id] = "done" if was_there else "unknown"
        answers.update({one.id: "sealed" for _, one in chosen if back and not one.raw})
        return answers

    def _rows(self, limit: int) -> list[tuple[bytes, Refused]]:
        with translated():
            rows = self._store.redis.lrange(self._refused, 0, limit - 1)
        return [(row, self._read(row)) for row in rows]

    def _read(self, row: bytes) -> Refused:
        facts = json.loads(row.partition(b"\n")[0])
        try:
            raw = open_refused(self._sealer, row)
        except Unsealable:
            raw = b""
        return Refused(hashlib.sha256(row).hexdigest()[:12], facts["at"], facts["error"], raw)
