"""How an account stands, from what the claim script knows of it: state, pace, quotas, health, fallback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# As in scripts/health.lua and scripts/governor.lua.
FLOOR, CEILING, RECOVERY = 0.05, 1.0, 0.01
_LENGTHS = {"hour": 3600.0, "day": 86_400.0}


def standing(record: Mapping[str, str], now: float, ahead: float = 0.0) -> dict[str, Any]:
    """JSON-ready facts of one account at `now` (seconds since 1970); all times are such seconds, too.

    The ledger's own time, in which the record says until when, is `ahead` of `now` by so many seconds.

    `state` is ready, slowed, parked, paused or needs_login, with `reason`, `words`, `by`, `since` and `until` where
    they apply. `pace` is the share of its limits the account uses now, between `floor` and `ceiling`, and `held_until`
    when nothing may begin before. `quota` says by window what is left, of how many, and when all of it is free again.
    `breaker` counts failures in a row and how often it opened since a success. `max_recipients` is what the provider
    took so far, where that is less than its limit.
    """
    facts: dict[str, Any] = {key: record[key] for key in ("state", "reason", "words", "by") if record.get(key)}
    if record.get("since", "0") != "0":
        facts["since"] = _seconds(record["since"])
    if record.get("until", "0") != "0":
        facts["until"] = _seconds(record["until"]) - ahead
    factor = CEILING
    if "factor" in record:
        regained = (now + ahead - _seconds(record["factor_at"])) * RECOVERY
        factor = min(CEILING, float(record["factor"]) + max(0.0, regained))
    held_back = _seconds(record.get("hold", "0")) - ahead
    held = max(held_back, _seconds(record.get("stalled", "0")) - ahead)
    if facts.get("state") == "ready" and (factor < CEILING or held_back > now):
        facts["state"] = "slowed"
    facts["pace"] = {"factor": round(factor, 3), "floor": FLOOR, "ceiling": CEILING}
    if held > now:
        facts["pace"]["held_until"] = held
    quota = {name: _quota(record, name, now, ahead) for name in _LENGTHS if record.get(f"{name}_limit")}
    if quota:
        facts["quota"] = {**quota, "counts": "recipients" if record.get("counts") == "r" else "mails"}
    trouble, opened = int(record.get("trouble", 0)), int(record.get("opened", 0))
    if trouble or opened or "probe" in record:
        facts["breaker"] = {"failures_in_a_row": trouble, "opened": opened, "probing": "probe" in record}
    if record.get("max_rcpt") != record.get("max_given"):
        facts["max_recipients"] = int(record["max_rcpt"])
    if record.get("fallback"):
        facts["fallback"], facts["overflow"] = record["fallback"], record.get("overflow", "never")
    return facts


def _quota(record: Mapping[str, str], name: str, now: float, ahead: float) -> dict[str, Any]:
    limit, used = int(record[f"{name}_limit"]), int(record.get(f"{name}_used", 0))
    ends = _seconds(record[f"{name}_end"]) - ahead if record.get(f"{name}_end") else 0.0
    if now >= ends:  # nobody looked since
        used = 0
        ends = ends + math.ceil((now - ends + 1) / _LENGTHS[name]) * _LENGTHS[name] if ends else 0.0
    shown: dict[str, Any] = {"limit": limit, "left": max(0, limit - used)}
    if used and ends:
        shown["frees_at"] = ends
    return shown


def _seconds(micros: str) -> float:
    return int(float(micros)) / 1e6
