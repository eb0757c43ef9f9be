"""What a monitoring system asks of a ledger, from its indexes: the cost is by account and group, never by record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postier.ledger.groups import Groups
from postier.ledger.health import ServerFacts, server_facts
from postier.ledger.queries import ENDS
from postier.ledger.standing import standing
from postier.ledger.store import Store, translated

PRIORITIES = {"u": "urgent", "b": "bulk"}
# Retention takes these out of the ledger, and counts them: together with those still held they only ever grow.
FORGOTTEN = ("sent", "discarded")
_SLICE = 100  # accounts asked about at once: nobody else waits long behind them
# What was superseded or given up stays in its lane until a worker comes by: so many are looked at for one that waits.
_LOOKED_AT = 4
_Records = dict[bytes, Sequence[bytes | None]]
_SEND = ("ready", "slowed", "probing")


@dataclass(frozen=True, slots=True)
class AccountMeasures:
    """One account: `waiting` and `oldest` by priority, the latter in seconds since the first of the lane was due.

    `rate` is in mails per second and None without a limit, `quota` what is left and the limit, by window. `state` is
    that of `standing`, or `probing` while its first mail after a pause is awaited, or `unseen`.
    """

    state: str
    reason: str
    waiting: Mapping[str, int]
    oldest: Mapping[str, float]
    conversations: int
    kept: int
    connections: int
    pace: float
    rate: float | None
    quota: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Measures:
    """One look. Times are in seconds; `last_look` is how long ago a worker looked for mail, None when none ever did.

    `deliveries` are held now, by state; `ever` ended so, the forgotten ones too. `failures` wait for a person, by
    state, cause and account. `eligible` says, by priority, how many lanes may send now and how long the mail that
    waits longest for a worker has been allowed to leave.
    """

    deliveries: Mapping[str, int]
    ever: Mapping[str, int]
    failures: Mapping[tuple[str, str, str], int]
    inbox_waiting: int
    inbox_refused: int
    workers: int
    threads: int
    last_look: float | None
    stopped: bool
    eligible: Mapping[str, tuple[int, float]]
    accounts: Mapping[str, AccountMeasures]
    server: ServerFacts


@dataclass(frozen=True, slots=True)
class _Moment:
    """Redis time and the ledger's own, in microseconds."""

    wall: int
    now: int

    def age(self, since: float) -> float:
        """Seconds since a time of the ledger's own."""
        return max(0.0, (self.now - since) / 1e6)


def measure(store: Store) -> Measures:
    """Measure once, with plain reads. Raises LedgerUnavailable."""
    server = server_facts(store, condition_only=True)
    key = store.key
    with translated():
        # In one piece: what goes from one of these indexes to another must not be missed, or be counted twice.
        pipe = store.redis.pipeline(transaction=True)
        pipe.time()
        pipe.mget(key("clock"), key("tick"))
        pipe.hget(key("dataset"), "stopped")
        pipe.smembers(key("accounts"))
        pipe.hmget(key("forgotten"), FORGOTTEN)
        for name in ("lease", "scheduled", *(f"ended:{state}" for state in ENDS)):
            pipe.zcard(key(name))
        for name in ("inbox", "inbox:taken", "inbox:refused"):
            pipe.llen(key(name))
        for lane in PRIORITIES:
            pipe.zrange(key(f"due:{lane}"), 0, -1, withscores=True)
        (seconds, micros), (ahead, tick), stopped, names, forgotten, leased, scheduled, *rest = pipe.execute()
    wall = seconds * 1_000_000 + micros
    moment = _Moment(wall, wall + int(ahead or 0))
    ended = dict(zip(ENDS, rest, strict=False))
    pushed, taken, refused, *due = rest[len(ENDS) :]
    living, threads = _workers(store, moment)
    accounts = dict(_accounts(store, sorted(names), living, moment))
    waiting = sum(sum(account.waiting.values()) for account in accounts.values())
    return Measures(
        deliveries={"waiting": waiting, "scheduled": scheduled, "leased": leased, **ended},
        ever={state: ended[state] + int(count or 0) for state, count in zip(FORGOTTEN, forgotten, strict=True)},
        failures=Groups(store).counts(),
        inbox_waiting=pushed + taken,
        inbox_refused=refused,
        workers=len(living),
        threads=threads,
        last_look=None if tick is None else moment.age(float(tick)),
        stopped=stopped is not None,
        eligible={
            priority: _eligible(priority, rows, accounts, moment)
            for priority, rows in zip(PRIORITIES.values(), due, strict=True)
        },
        accounts=accounts,
        server=server,
    )


def _workers(store: Store, moment: _Moment) -> tuple[set[bytes], int]:
    """The workers that live, and how many threads they have together; those that drain have none."""
    with translated():
        names = store.redis.zrangebyscore(store.key("workers"), moment.now, "+inf")
        pipe = store.redis.pipeline(transaction=False)
        for name in names:
            pipe.hget(store.key("worker:").encode() + name, "threads")
        threads = pipe.execute()
    return set(names), sum(int(count or 0) for count in threads)


def _accounts(
    store: Store, names: Sequence[bytes], living: set[bytes], moment: _Moment
) -> Iterator[tuple[str, AccountMeasures]]:
    for at in range(0, len(names), _SLICE):
        page = [name.decode("utf-8", "replace") for name in names[at : at + _SLICE]]
        with translated():
            pipe = store.redis.pipeline(transaction=False)
            for name in page:
                pipe.hgetall(store.key(f"account:{name}"))
                pipe.zcard(store.key(f"sending:{name}"))
                pipe.hgetall(store.key(f"kept:{name}"))
                for lane in PRIORITIES:
                    pipe.llen(store.key(f"lane:{name}:{lane}"))
                    pipe.lrange(store.key(f"lane:{name}:{lane}"), 0, _LOOKED_AT - 1)
            answers = pipe.execute()
        rows = [answers[first : first + 7] for first in range(0, len(answers), 7)]
        ages = iter(_ages(store, [heads for row in rows for heads in (row[4], row[6])], moment))
        for name, (record, busy, kept, urgent, _, bulk, _) in zip(page, rows, strict=True):
            account = _account(
                {field.decode(): value.decode("utf-8", "replace") for field, value in record.items()},
                moment,
                waiting=dict(zip(PRIORITIES.values(), (urgent, bulk), strict=True)),
                oldest={priority: next(ages) for priority in PRIORITIES.values()},
                conversations=busy,
                kept=sum(int(value.partition(b" ")[0]) for worker, value in kept.items() if worker in living),
            )
            yield name, account


def _account(record: Mapping[str, str], moment: _Moment, **counted: Any) -> AccountMeasures:
    facts = standing(record, moment.wall / 1e6, (moment.now - moment.wall) / 1e6)
    state = facts.get("state", "unseen")
    if state in ("ready", "slowed") and facts.get("breaker", {}).get("probing"):
        state = "probing"
    pace = facts["pace"]["factor"]
    rates = [1e6 / float(record[field]) for field in ("second_t", "minute_t") if record.get(field)]
    windows = {name: facts.get("quota", {}).get(name) for name in ("hour", "day")}
    return AccountMeasures(
        state=state, reason=facts.get("reason", ""), pace=pace, rate=min(rates) * pace if rates else None,
        connections=int(record.get("cap", 0)),
        quota={name: (quota["left"], quota["limit"]) for name, quota in windows.items() if quota}, **counted,
    )  # fmt: skip


def _ages(store: Store, lanes: Sequence[Sequence[bytes]], moment: _Moment) -> list[float]:
    """Seconds since the first delivery of each lane that waits was due, from the lanes' first ids; 0 without one.

    A retry is due when its time has come, a replay when it was to start: neither counts from when it was accepted.
    """
    found = _records(store, [heads[0] for heads in lanes if heads])
    found |= _records(store, [head for heads in lanes if heads and not _waits(heads[0], found) for head in heads[1:]])
    firsts = [_first_that_waits(heads, found) for heads in lanes]
    replayed = {head: replay for head in firsts if head and (replay := found[head][3])}
    with translated():
        pipe = store.redis.pipeline(transaction=False)
        for head, replay in replayed.items():
            pipe.zscore(store.key("replay-of:").encode() + replay, head)
        slots = dict(zip(replayed, pipe.execute(), strict=True))

    def age(head: bytes | None) -> float:
        if head is None:
            return 0.0
        _, accepted, due, _ = found[head]
        accepted_at = float(accepted or moment.wall) + moment.now - moment.wall
        return moment.age(max(accepted_at, float(due or 0), slots.get(head) or 0))

    return [age(head) for head in firsts]


def _records(store: Store, ids: Sequence[bytes]) -> _Records:
    with translated():
        pipe = store.redis.pipeline(transaction=False)
        for head in ids:
            pipe.hmget(store.key("delivery:").encode() + head, "state", "accepted_at", "due", "replay")
        return dict(zip(ids, pipe.execute(), strict=True))


def _waits(head: bytes, found: _Records) -> bool:
    return found[head][0] == b"waiting"


def _first_that_waits(heads: Iterable[bytes], found: _Records) -> bytes | None:
    """Or the last of them: a lane of leftovers is not told to be empty."""
    last = None
    for last in heads:
        if _waits(last, found):
            break
    return last


def _eligible(
    priority: str, due: Iterable[tuple[bytes, float]], accounts: Mapping[str, AccountMeasures], moment: _Moment
) -> tuple[int, float]:
    """How many lanes may send now, and how long the mail that waits longest for that has been allowed to leave.

    A lane's score says since when it may send, its first mail since when there is something to send.
    """
    ages = []
    for name, score in due:
        account = accounts.get(name.decode("utf-8", "replace"))
        if score <= moment.now and account is not None and account.state in _SEND and account.waiting[priority]:
            ages.append(min(moment.age(score), account.oldest[priority]))
    return len(ages), max(ages, default=0.0)
