"""What is going on in a ledger now: every account's pace, quota and waiting mail, throughput, reasons of failure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from postier.ledger.groups import Groups
from postier.ledger.queries import Queries
from postier.ledger.search import Filters
from postier.ledger.store import Store, translated

_WINDOW = 60.0
_SAMPLE = 5000


@dataclass(slots=True)
class Picture:
    """One look. Times are seconds since 1970, rates mails per second; `accounts` by name, `failures` of an hour by
    class, `counts` by state."""

    at: float
    counts: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent_per_second: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    workers: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The picture as one JSON-ready object."""
        return {name: getattr(self, name) for name in self.__slots__}


def look(store: Store) -> Picture:
    """Look once; the cost is by account, not by delivery. Raises LedgerUnavailable."""
    queries = Queries(store)
    now = store.now() / 1e6
    picture = Picture(now, queries.counts(), queries.accounts())
    with translated():
        recent = int(store.redis.zcount(store.key("ended:sent"), int((now - _WINDOW) * 1e6), "+inf"))
    picture.sent_per_second = round(recent / _WINDOW, 2)
    shares = _shares(store, now, recent)
    for name, facts in picture.accounts.items():
        facts["per_second"] = round(shares.get(name, 0.0) / _WINDOW, 2)
    _add_limits(store, picture, now)
    _add_oldest(store, picture, now)
    _add_failures(store, picture, now)
    picture.workers = workers(store, now)
    return picture


def _shares(store: Store, now: float, recent: int) -> dict[str, float]:
    """Mails of the last minute by account, from the newest few thousand."""
    with translated():
        ids = store.redis.zrevrangebyscore(
            store.key("ended:sent"), "+inf", int((now - _WINDOW) * 1e6), start=0, num=_SAMPLE
        )  # fmt: skip
        pipe = store.redis.pipeline(transaction=False)
        for item in ids:
            pipe.hget(store.key(f"delivery:{item.decode()}"), "account")
        tally = Counter(name.decode() for name in pipe.execute() if name)
    scale = recent / len(ids) if ids else 0.0
    return {name: count * scale for name, count in tally.items()}


def _add_limits(store: Store, picture: Picture, now: float) -> None:
    names = list(picture.accounts)
    wanted = (
        "second_t",
        "minute_t",
        "hour_limit",
        "hour_used",
        "hour_end",
        "day_limit",
        "day_used",
        "day_end",
        "factor",
    )
    with translated():
        pipe = store.redis.pipeline(transaction=False)
        for name in names:
            pipe.hmget(store.key(f"account:{name}"), wanted)
        rows = pipe.execute()
    ahead = store.ahead()
    for name, row in zip(names, rows, strict=True):
        known = {key: float(value) for key, value in zip(wanted, row, strict=True) if value}
        rates = [1e6 / known[key] for key in ("second_t", "minute_t") if known.get(key)]
        facts = picture.accounts[name]
        facts["allowed_per_second"] = round(min(rates), 2) if rates else None
        for length in ("hour", "day"):
            if f"{length}_limit" in known:
                over = now * 1e6 + ahead >= known.get(f"{length}_end", 0)
                used = 0 if over else known.get(f"{length}_used", 0)
                facts[f"{length}_left"] = max(0, int(known[f"{length}_limit"] - used))


def _add_failures(store: Store, picture: Picture, now: float) -> None:
    """Failures of the last hour by class; the latest is the last error of an account that has nothing worse to tell."""
    tally: Counter[str] = Counter()
    for group in sorted(Groups(store).find(Filters(since=now - 3600)), key=lambda one: -one.last):
        tally[group.cause or group.state] += group.count
        if group.account in picture.accounts:
            words = " ".join(filter(None, (group.cause or group.state, group.words)))
            picture.accounts[group.account].setdefault("last_error", words)
    picture.failures = dict(tally)


def _add_oldest(store: Store, picture: Picture, now: float) -> None:
    """The age of the first of each lane: the oldest but for retries that came back to its head."""
    lanes = [(name, lane) for name in picture.accounts for lane in "ub"]
    with translated():
        pipe = store.redis.pipeline(transaction=False)
        for name, lane in lanes:
            pipe.lindex(store.key(f"lane:{name}:{lane}"), 0)
        heads = pipe.execute()
        pipe = store.redis.pipeline(transaction=False)
        for head in heads:
            pipe.hmget(store.key(f"delivery:{head.decode() if head else ''}"), "accepted_at", "cause", "words")
        rows = pipe.execute()
    for (name, _), (accepted, cause, words) in zip(lanes, rows, strict=True):
        facts = picture.accounts[name]
        if accepted:
            facts["oldest"] = round(max(facts.get("oldest", 0.0), now - float(accepted) / 1e6), 1)
        if (cause or words) and not facts.get("words"):
            facts["last_error"] = " ".join(part.decode("utf-8", "replace") for part in (cause, words) if part)
    for facts in picture.accounts.values():
        if facts.get("words") or facts.get("reason"):
            facts["last_error"] = " ".join(str(facts[key]) for key in ("reason", "words") if facts.get(key))


def workers(store: Store, now: float) -> list[dict[str, Any]]:
    """Workers that said what they hold within the last minute, with the seconds since then."""
    now += store.ahead() / 1e6
    with translated():
        names = [
            name.decode() for name in store.redis.zrangebyscore(store.key("workers"), int((now - 60) * 1e6), "+inf")
        ]
        pipe = store.redis.pipeline(transaction=False)
        for name in names:
            pipe.hmget(store.key(f"worker:{name}"), "threads", "conversations", "seen")
        rows = pipe.execute()
    return [
        {
            "worker": name, "threads": int(threads or 0), "conversations": int(busy or 0),
            "seen_ago": round(max(0.0, now - float(seen) / 1e6), 1),
        }
        for name, (threads, busy, seen) in zip(names, rows, strict=True)
        if seen
    ]  # fmt: skip
