"""What `postier metrics` tells: every metric with its labels, and the collector that fills them from the ledger.

Labels are accounts, which the configuration bounds, and words of ours: nothing that servers, recipients or producers
say, for each new value would be a new series for ever. `docs/metrics.md` explains each one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from postier.console.ledger_access import ledger
from postier.console.words import CAUSES
from postier.ledger.health import ServerFacts
from postier.ledger.measures import AccountMeasures, Measures, measure
from postier.schemas.errors import LedgerUnavailable
from postier.settings.config import Settings

Row = tuple[str, tuple[str, ...], float]


class Known(NamedTuple):
    """A metric: a counter when its name ends in `_total`, else a gauge."""

    name: str
    labels: tuple[str, ...]
    words: str


_BY_ACCOUNT, _BY_LANE, _BY_WINDOW = ("account",), ("account", "priority"), ("account", "window")
METRICS = (
    Known("postier_up", (), "Whether the ledger answered: 1 or 0."),
    Known("postier_scrape_duration_seconds", (), "How long this look at the ledger took."),
    Known("postier_workers_stopped", (), "Whether workers stand still, for this is not the ledger they knew."),
    Known("postier_workers", (), "Workers that live."),
    Known("postier_worker_threads", (), "Threads of all of them; those that drain have none."),
    Known("postier_last_look_seconds", (), "Since a worker last looked for mail."),
    Known("postier_deliveries", ("state",), "Deliveries held now; those that ended are forgotten after a time."),
    Known("postier_sent_total", (), "Deliveries sent, the forgotten ones too."),
    Known("postier_discarded_total", (), "Deliveries given up or superseded, the forgotten ones too."),
    Known("postier_waiting_for_a_person", ("state", "cause", "account"), "Deliveries that wait for a person."),
    Known("postier_inbox_waiting", (), "Events in the inbox that no worker has taken."),
    Known("postier_inbox_refused", (), "Events of the inbox that were refused and are kept, 10000 at most."),
    Known("postier_eligible_lanes", ("priority",), "Lanes whose account may send the next mail now."),
    Known("postier_eligible_oldest_seconds", ("priority",), "How long the first of them waits for a worker."),
    Known("postier_account_state", ("account", "state", "reason"), "1 for the state that an account is in."),
    Known("postier_account_waiting", _BY_LANE, "Deliveries in its lane."),
    Known("postier_account_oldest_seconds", _BY_LANE, "How long the first of its lane has been due."),
    Known("postier_account_conversations", _BY_ACCOUNT, "Conversations with its server in progress."),
    Known("postier_account_connections_idle", _BY_ACCOUNT, "Connections kept open between conversations."),
    Known("postier_account_connections_limit", _BY_ACCOUNT, "Most connections, idle ones too."),
    Known("postier_account_pace_ratio", _BY_ACCOUNT, "Share of its limits that it uses now; below 1 it was slowed."),
    Known("postier_account_rate_limit", _BY_ACCOUNT, "Mails a second that it may begin now."),
    Known("postier_account_quota_left", _BY_WINDOW, "Mails or recipients left of its quota."),
    Known("postier_account_quota_limit", _BY_WINDOW, "Its quota."),
    Known("postier_redis_memory_bytes", (), "Memory that Redis uses."),
    Known("postier_redis_memory_limit_bytes", (), "Its maxmemory."),
    Known("postier_redis_append_only", (), "Whether it keeps what it accepted over a restart: 1 or 0."),
    Known("postier_redis_writes_failing", (), "Whether its last write to disk failed: 1 or 0."),
    Known("postier_redis_evicts", (), "Whether it throws data away when its memory is full: 1 or 0."),
)


class LedgerCollector(Collector):
    """Looks at the ledger anew for every exposition, over a connection of its own: nothing is kept that could fail
    for longer than Redis does. `away` is why the last look found no ledger, or None."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.away: LedgerUnavailable | None = None

    def describe(self) -> Iterable[Metric]:
        """The metrics without values."""
        return _families().values()

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now; of a ledger that is away only that it is."""
        began = time.monotonic()
        rows = self._rows()
        rows.append(("postier_scrape_duration_seconds", (), time.monotonic() - began))
        families = _families()
        for name, labels, value in rows:
            families[name].add_metric(labels, value)
        return [family for family in families.values() if family.samples]

    def _rows(self) -> list[Row]:
        try:
            with ledger(self._settings) as opened:
                measures = measure(opened.store)
        except LedgerUnavailable as error:
            self.away = error
            return [("postier_up", (), 0)]
        self.away = None
        rows: list[Row] = [("postier_up", (), 1)]
        rows += (*_of_all(measures), *_of_failures(measures), *_of_server(measures.server))
        for name, account in measures.accounts.items():
            rows += _of_account(name, account)
        return rows


def _families() -> dict[str, CounterMetricFamily | GaugeMetricFamily]:
    return {
        one.name: (CounterMetricFamily if one.name.endswith("_total") else GaugeMetricFamily)(
            one.name, one.words, labels=one.labels
        )
        for one in METRICS
    }


def _of_all(measures: Measures) -> Iterator[Row]:
    yield "postier_workers_stopped", (), measures.stopped
    yield "postier_workers", (), measures.workers
    yield "postier_worker_threads", (), measures.threads
    if measures.last_look is not None:
        yield "postier_last_look_seconds", (), measures.last_look
    for state, count in measures.deliveries.items():
        yield "postier_deliveries", (state,), count
    for state, count in measures.ever.items():
        yield f"postier_{state}_total", (), count
    yield "postier_inbox_waiting", (), measures.inbox_waiting
    yield "postier_inbox_refused", (), measures.inbox_refused
    for priority, (lanes, seconds) in measures.eligible.items():
        yield "postier_eligible_lanes", (priority,), lanes
        yield "postier_eligible_oldest_seconds", (priority,), seconds


def _of_failures(measures: Measures) -> Iterator[Row]:
    tally: Counter[tuple[str, str, str]] = Counter()
    for (state, cause, account), count in measures.failures.items():
        tally[state, _bounded(cause or state), account] += count
    for labels, count in tally.items():
        yield "postier_waiting_for_a_person", labels, count


def _bounded(cause: str) -> str:
    """A driver that is not ours may name its own causes."""
    return cause if cause in CAUSES else "other"


def _of_account(name: str, account: AccountMeasures) -> Iterator[Row]:
    reason = _bounded(account.reason) if account.reason else ""
    yield "postier_account_state", (name, account.state, reason), 1
    for priority, count in account.waiting.items():
        yield "postier_account_waiting", (name, priority), count
        yield "postier_account_oldest_seconds", (name, priority), account.oldest[priority]
    yield "postier_account_conversations", (name,), account.conversations
    yield "postier_account_connections_idle", (name,), account.kept
    yield "postier_account_connections_limit", (name,), account.connections
    yield "postier_account_pace_ratio", (name,), account.pace
    if account.rate is not None:
        yield "postier_account_rate_limit", (name,), account.rate
    for window, (left, limit) in account.quota.items():
        yield "postier_account_quota_left", (name, window), left
        yield "postier_account_quota_limit", (name, window), limit


def _of_server(server: ServerFacts) -> Iterator[Row]:
    """What it does not tell is left out: a guess would page nobody, or somebody for nothing."""
    if server.used_memory is not None:
        yield "postier_redis_memory_bytes", (), server.used_memory
    if server.max_memory:
        yield "postier_redis_memory_limit_bytes", (), server.max_memory
    if server.append_only is not None:
        yield "postier_redis_append_only", (), server.append_only
        yield "postier_redis_writes_failing", (), server.writes_fail
    if server.policy is not None:
        yield "postier_redis_evicts", (), server.policy != "noeviction"
