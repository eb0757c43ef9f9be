"""Before the first claim: are the settings usable, and does this Redis keep what it accepted?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from postier.drivers.egress import public_only_resolver
from postier.ledger.health import ServerFacts, server_facts
from postier.ledger.store import Store
from postier.schemas.errors import ConfigurationError
from postier.settings.config import Settings
from postier.settings.logs import log

ALLOW_VOLATILE = "POSTIER_ALLOW_VOLATILE"

Level = Literal["disk", "seconds", "system", "memory", "unknown"]

_PROMISES: dict[Level, str] = {
    "disk": "accepted means on disk",
    "seconds": "up to 2 s of accepted events may go in a power cut",
    "system": "up to 30 s of accepted events may go in a power cut: the operating system decides when it writes",
    "memory": "accepted events live in memory alone: a restart of Redis loses them",
    "unknown": "this Redis does not tell how it keeps data: ask whoever runs it for appendfsync always",
}
_BY_FSYNC: dict[str | None, Level] = {"always": "disk", "everysec": "seconds", "no": "system"}


@dataclass(frozen=True, slots=True)
class Durability:
    """What an accepted event survives: `disk`, `seconds`, `system`, `memory` or `unknown`, and the sentence for it."""

    level: Level

    @property
    def words(self) -> str:
        """One sentence for people."""
        return _PROMISES[self.level]


def durability_of(facts: ServerFacts) -> Durability:
    """What this server promises."""
    if facts.append_only is False:
        return Durability("memory")
    return Durability(_BY_FSYNC.get(facts.append_fsync, "unknown"))


def refusal_of(facts: ServerFacts) -> str | None:
    """Why postier must not run on this server, with what to do; None when it may. Eviction is never allowed."""
    if facts.policy not in (None, "noeviction"):
        return (
            f"Redis throws data away when its memory is full (maxmemory-policy {facts.policy}): "
            "set maxmemory-policy noeviction"
        )
    if facts.append_only is False and os.environ.get(ALLOW_VOLATILE) != "1":
        return (
            "Redis keeps nothing over a restart (appendonly no): set appendonly yes and appendfsync always, "
            f"or say {ALLOW_VOLATILE}=1 when losing accepted mail is all right"
        )
    return None


def check_egress(settings: Settings) -> None:
    """Raises ConfigurationError for an entry of POSTIER_EGRESS_ALLOW that is none: every account would be blamed."""
    try:
        public_only_resolver(settings.egress())
    except ValueError as error:
        raise ConfigurationError(f"POSTIER_EGRESS_ALLOW: {str(error).removeprefix('allow_hosts: ')}") from None


def check_redis(store: Store) -> Durability:
    """Refuse a server that loses accepted mail, and say what the others promise. Repeating is safe.

    Raises ConfigurationError for an evicting policy, and for a server without append-only file unless
    POSTIER_ALLOW_VOLATILE=1; raises LedgerUnavailable.
    """
    facts = server_facts(store)
    refused = refusal_of(facts)
    if refused is not None:
        raise ConfigurationError(refused)
    durability = durability_of(facts)
    tell = log().info if durability.level in ("disk", "seconds") else log().warning
    tell("ledger.checked", server=f"{facts.name} {facts.version}", durability=durability.level, means=durability.words)
    if facts.policy is None:
        log().warning("ledger.unchecked", reason="Redis does not tell its maxmemory-policy: it must be noeviction")
    return durability
