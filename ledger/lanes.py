"""Lanes after people gave up what stood in them: workers drop that only when they come by, a parked account's never."""

from __future__ import annotations

from postier.ledger.store import Store, translated

_SLICE = 1000


def tidy_lanes(store: Store) -> int:
    """Take out of lanes what was discarded while it waited; answers how much that was. Raises LedgerUnavailable.

    In bounded steps while workers go on; repeating is safe.
    """
    out = 0
    with translated():
        untidy = [name.decode() for name in store.redis.smembers(store.key("untidy"))]
    for name in untidy:
        lane, _, account = name.partition(":")
        with translated():  # before the look: what is discarded meanwhile is noted anew
            store.redis.srem(store.key("untidy"), name)
        first = 0
        while True:
            looked, gone = store.run("tidy", (account, lane, first, first + _SLICE - 1))
            out += gone
            first += looked - gone
            if looked < _SLICE:
                break
    return out
