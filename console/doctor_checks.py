"""What the doctor looks at, one finding a check; a check whose ground is missing is left out."""

from __future__ import annotations

import time
from collections.abc import Iterator

from postier.console.doctor_accounts import examine_file, examine_stored, readable_file
from postier.console.doctor_finding import Finding
from postier.console.doctor_ledger import examine_ledger
from postier.console.ledger_access import demo_hint, redis_address
from postier.ledger.accounts import RegistryReader
from postier.ledger.dataset import why_stopped
from postier.ledger.health import ServerFacts, last_claim, server_facts
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from postier.schemas.errors import ConfigurationError, LedgerUnavailable
from postier.settings.config import Settings, load_settings, unknown_variables
from postier.workers.preflight import ALLOW_VOLATILE, check_egress, durability_of, refusal_of

# Beyond this a link may be refused or sent by the wrong clock: times are judged here, leases by Redis.
_SKEW_WARN, _SKEW_FAIL = 2.0, 30.0
_WORKERS_SEEN = 5.0
_STILL = ("parked", "paused", "needs_login")
_FULL = 0.95
_BUSY = 0.75  # share of maxmemory at which publish answers busy


def examine(*, health: bool = False, thorough: bool = False, mend: bool = False) -> Iterator[Finding]:
    """Check everything, from the settings outward; `thorough` and `mend` are about the ledger's indexes.

    `health` leaves out what a restart of the process that asks would not mend: accounts, memory, other workers.
    """
    try:
        settings = load_settings()
        check_egress(settings)
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), "Mend the variable that is named.")
        return
    yield Finding("settings", "ok", f"namespace {settings.namespace}, data in {settings.data_dir}")
    for sentence in unknown_variables(settings):
        yield Finding("settings", "warn", sentence, "Nothing reads it: docs/settings.md lists what is read.")
    yield _seal_keys(settings)
    yield from readable_file(settings) if health else examine_file(settings)
    store = Store(settings.redis_url, namespace=settings.namespace, timeout=settings.redis_timeout)
    try:
        facts = server_facts(store)
        yield _redis(store, facts)
        if health:
            return
        yield _durability(facts)
        yield _memory(facts)
        yield from _data_set(store)
        yield _clock(store)
        yield from examine_stored(store, settings)
        yield _standing(store)
        yield _workers(store)
        yield from examine_ledger(store, thorough=thorough, mend=mend)
    except LedgerUnavailable as error:
        yield Finding("redis", "fail", f"{error} ({redis_address(settings.redis_url)})", demo_hint())
    finally:
        store.close()


def _seal_keys(settings: Settings) -> Finding:
    try:
        sealer = settings.sealer()
        sealer.open(sealer.seal(b"?", b"doctor"), b"doctor")
    except ConfigurationError as error:
        return Finding("seal keys", "fail", str(error))
    return Finding("seal keys", "ok", "payloads are sealed at rest")


def _redis(store: Store, facts: ServerFacts) -> Finding:
    words = f"{facts.name} {facts.version} answers at {redis_address(store.url)}"
    refused = refusal_of(facts)
    if refused is not None:
        return Finding("redis", "fail", f"{words}. {refused}", "Workers do not start on it.")
    if facts.policy is None:
        return Finding("redis", "warn", f"{words}, but does not tell its maxmemory-policy", "It must be noeviction.")
    return Finding("redis", "ok", f"{words}, nothing is evicted")


def _durability(facts: ServerFacts) -> Finding:
    durability = durability_of(facts)
    if facts.writes_fail:
        words = "disk_full: the last write to disk failed, and Redis takes no more"
        return Finding("durability", "fail", words, "Make room on the disk of the Redis server; all goes on by itself.")
    if durability.level == "disk":
        return Finding("durability", "ok", durability.words)
    advice = "Set appendonly yes and appendfsync always for no loss."
    if durability.level == "memory":
        advice += f" {ALLOW_VOLATILE}=1 lets workers start without."
    return Finding("durability", "warn", durability.words, advice)


def _memory(facts: ServerFacts) -> Finding:
    if facts.used_memory is None:
        return Finding("memory", "warn", "this Redis does not tell its memory")
    used = f"{facts.used_memory / 2**20:.0f} MiB used"
    if not facts.max_memory:
        return Finding("memory", "warn", f"{used}, no maxmemory", "Set maxmemory below what the machine has.")
    share = facts.used_memory / facts.max_memory
    words = f"{used} of {facts.max_memory / 2**20:.0f} MiB"
    if share > _FULL:
        return Finding("memory", "fail", f"redis_full: {words}", "Raise maxmemory, or remove what is not postier's.")
    if share > _BUSY:
        return Finding("memory", "fail", words, "Publishing answers busy: raise maxmemory or let workers drain.")
    return Finding("memory", "ok", words)


def _data_set(store: Store) -> Iterator[Finding]:
    why = why_stopped(store)
    if why is not None:
        words = f"workers stand still, for this is not the ledger they knew: {why}"
        advice = "Bring the right data back, or send what this one holds: `postier doctor --accept-dataset`."
        yield Finding("data set", "fail", words, advice)


def _clock(store: Store) -> Finding:
    before = time.time()
    theirs = store.now() / 1e6
    skew = theirs - (before + time.time()) / 2
    words = f"Redis is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) < _SKEW_WARN:
        return Finding("clock", "ok", "this machine and Redis agree on the time")
    return Finding("clock", "fail" if abs(skew) > _SKEW_FAIL else "warn", words, "Run NTP on both machines.")


def _standing(store: Store) -> Finding:
    queries = Queries(store)
    counts, accounts = queries.counts(), queries.accounts()
    words = f"{counts['waiting']} waiting, {counts['in_hand']} in hand, {counts['failed']} failed"
    known = RegistryReader(store).current().accounts
    still = sorted(
        name
        for name, facts in accounts.items()
        if facts.get("state") in _STILL
        or (known and name not in known and facts["waiting_urgent"] + facts["waiting_bulk"])
    )
    if still:
        return Finding("deliveries", "warn", f"{words}; standing still: {', '.join(still)}", "`postier accounts list`.")
    return Finding("deliveries", "ok", words)


def _workers(store: Store) -> Finding:
    ago = last_claim(store)
    if ago is None:
        return Finding("workers", "warn", "no worker was ever seen", "Start some with `postier work`.")
    if ago > _WORKERS_SEEN:
        return Finding("workers", "warn", f"no worker for {ago:.0f} s", "Start some with `postier work`.")
    return Finding("workers", "ok", f"a worker looked for mail {ago:.1f} s ago")
