"""What the doctor looks at in the ledger: workers, versions of kinds, and whether the indexes say what records say."""

from __future__ import annotations

from collections.abc import Iterator

from postier.console.doctor_finding import Finding
from postier.console.output import bar, safe
from postier.ledger.groups import WAITING_FOR_A_PERSON, Groups
from postier.ledger.inbox import inbox_counts
from postier.ledger.queries import Queries
from postier.ledger.repair import Indexes
from postier.ledger.search import Filters
from postier.ledger.store import Store
from postier.ledger.watch import workers
from postier.schemas.events import KINDS

_UNREADABLE = ("unknown_kind", "unknown_version", "undecodable")


def examine_ledger(store: Store, *, thorough: bool, mend: bool) -> Iterator[Finding]:
    """Workers, versions, indexes; `thorough` compares every record with its indexes, `mend` puts them right too."""
    seen = workers(store, store.now() / 1e6)
    if seen:
        words = ", ".join(
            f"{safe(one['worker'])} ({one['threads']} threads, {one['conversations']} conversations, "
            f"{one['seen_ago']:.0f} s ago)" for one in seen[:5]
        )  # fmt: skip
        yield Finding("fleet", "ok", f"{len(seen)} workers: {words}")
    yield _inbox(store)
    yield _versions(store)
    yield _indexes(store, mend=mend) if thorough or mend else _sizes(store)


def _inbox(store: Store) -> Finding:
    waiting, refused = inbox_counts(store)
    words = f"{waiting} events wait in it, {refused} were refused and are kept"
    if refused:
        return Finding("inbox", "warn", words, "`postier inbox list` says why, `retry` and `discard` end it.")
    return Finding("inbox", "ok", words)


def _versions(store: Store) -> Finding:
    unread = [one for one in Groups(store).find(Filters()) if one.cause in _UNREADABLE]
    if unread:
        words = ", ".join(f"{one.count} {safe(one.kind)}: {one.cause}" for one in unread[:5])
        advice = "Update the workers or give them the seal key, then `postier failed replay --group …`."
        return Finding("versions", "warn", words, advice)
    kinds = ", ".join(f"{name} {KINDS[name].schema_version}" for name in KINDS)
    return Finding("versions", "ok", f"kinds and versions here: {kinds}")


def _sizes(store: Store) -> Finding:
    counts = Queries(store).counts()
    waiting = sum(counts[state] for state in WAITING_FOR_A_PERSON)
    grouped = sum(one.count for one in Groups(store).find(Filters()))
    if waiting != grouped and waiting != _waiting_again(store):
        words = f"{waiting} deliveries wait for a person, {grouped} are in groups"
        return Finding("indexes", "warn", words, "`postier doctor --repair` compares every record and mends.")
    return Finding("indexes", "ok", f"{grouped} that wait for a person are in groups (--indexes looks at every record)")


def _waiting_again(store: Store) -> int:
    """What moved between two looks is no fault."""
    return sum(one.count for one in Groups(store).find(Filters()))


def _indexes(store: Store, *, mend: bool) -> Finding:
    with bar("comparing", sum(Queries(store).counts().values())) as told:
        found = Indexes(store).examine(mend=mend, told=told)
    if not found.wrong:
        return Finding("indexes", "ok", f"{found.looked} records and entries agree")
    wrong = ", ".join(f"{count} {word}" for word, count in found.wrong.most_common(6))
    if mend:
        return Finding("indexes", "ok", f"{found.looked} looked at, mended: {wrong}")
    return Finding("indexes", "fail", f"{found.looked} looked at: {wrong}", "`postier doctor --repair` mends them.")
