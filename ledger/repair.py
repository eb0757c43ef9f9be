"""Do the indexes say what the records say? Looked at and mended in bounded steps, while workers go on."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from postier.ledger.queries import ENDS
from postier.ledger.store import Store, glob, translated

_STEP = 500
_SCAN = 1000
_PAGE = 5000


@dataclass(slots=True)
class Examined:
    """What was looked at, and how often each thing was wrong. `mended` says whether it was put right."""

    looked: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)
    mended: bool = False


class Indexes:
    """The indexes of one ledger. Raises LedgerUnavailable; repeating is safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def examine(self, *, mend: bool = False, told: Callable[[int], None] | None = None) -> Examined:
        """Compare every record and every entry of an index with each other, twice where something looks wrong.

        What moves between two looks only looks wrong, so each doubt is looked at again before it counts.
        """
        found = Examined(mended=mend)
        lanes = self._lanes()
        for page in self._everything():
            doubtful = [item for item, words in self._ask(page, lanes, mend=False) if words]
            if doubtful:
                again = self._lanes()
                for item, words in self._ask(doubtful, again, mend=mend):
                    for word in filter(None, words.split(", ")):
                        found.wrong[word] += 1
                        if len(found.samples) < 10:
                            found.samples.append(f"{item} {word}")
            found.looked += len(page)
            if told is not None:
                told(found.looked)
        return found

    def _ask(self, ids: list[str], lanes: array[int], *, mend: bool) -> Iterator[tuple[str, str]]:
        args = [value for item in ids for value in (item, int(_holds(lanes, item)))]
        answers = self._store.run("repair", (int(mend), 0, *args))
        yield from zip(ids, (answer.decode() for answer in answers), strict=True)

    def _lanes(self) -> array[int]:
        """Everything that stands in a lane, eight bytes each."""
        found: list[int] = []
        with translated():
            names = sorted(self._store.redis.smembers(self._store.key("accounts")))
        for name in names:
            for lane in "ub":
                first = 0
                while True:
                    with translated():
                        page = self._store.redis.lrange(
                            self._store.key(f"lane:{name.decode()}:{lane}"), first, first + _PAGE - 1
                        )  # fmt: skip
                    found.extend(hash(item.decode()) for item in page)
                    if len(page) < _PAGE:
                        break
                    first += _PAGE
        return array("q", sorted(found))

    def _everything(self) -> Iterator[list[str]]:
        """Ids of all records, then of all entries of indexes; some come twice."""
        prefix = self._store.key("delivery:")
        cursor = 0
        while True:
            with translated():
                cursor, names = self._store.redis.scan(cursor, match=glob(prefix) + "*", count=_SCAN)
            yield from _steps([name.decode().removeprefix(prefix) for name in names])
            if cursor == 0:
                break
        for index in (*(f"ended:{state}" for state in ENDS), "lease", "deadline", "scheduled", "forget"):
            cursor = 0
            while True:
                with translated():
                    cursor, pairs = self._store.redis.zscan(self._store.key(index), cursor, count=_SCAN)
                    pipe = self._store.redis.pipeline(transaction=False)
                    for item, _ in pairs:
                        pipe.exists(self._store.key(f"delivery:{item.decode()}"))
                    known = pipe.execute()
                lost = [item.decode() for (item, _), exists in zip(pairs, known, strict=True) if not exists]
                yield from _steps(lost)
                if cursor == 0:
                    break


def _steps(ids: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(ids), _STEP):
        yield ids[at : at + _STEP]


def _holds(lanes: array[int], item: str) -> bool:
    wanted = hash(item)
    at = bisect_left(lanes, wanted)
    return at < len(lanes) and lanes[at] == wanted
