"""A delivery's timeline, complete: what the ledger noted, and what it keeps in the record to save room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postier.console.output import moment, safe, span
from postier.ledger.queries import Status

_ATTEMPTS = ("sent", "failed", "retried", "deferred", "unknown", "suppressed", "split")


def timeline(status: Status, drivers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Everything that happened, the latest first. `drivers` names the driver of each account."""
    steps = [dict(line) for line in status.history]
    steps.insert(0, {"at": status.accepted_at, "what": "accepted", "account": _first_account(status)})
    if status.state == "sent" and not any(step["what"] in ("sent", "resolved") for step in steps):
        facts = status.facts
        sent = {
            "at": status.ended_at, "what": "sent", "attempt": status.attempt, "account": status.account,
            "took": facts.get("took"), "code": facts.get("code"), "enhanced": facts.get("enhanced"),
            "words": status.words,
        }  # fmt: skip
        steps.append({key: value for key, value in sent.items() if value not in (None, "")})
    if status.state == "waiting" and status.due is not None and status.due > steps[-1]["at"]:
        steps[-1].setdefault("next_at", status.due)
    for name in ("leased", "sending"):
        if status.state == name and status.facts.get(f"{name}_at"):
            more = {"attempt": status.attempt, "account": status.account, "worker": status.facts.get("worker", "")}
            steps.append({"at": status.facts[f"{name}_at"], "what": name, **more})
    for step in steps:
        if step["what"] in _ATTEMPTS and step.get("account") in drivers:
            step["driver"] = drivers[step["account"]]
    return sorted(steps, key=lambda step: float(step.get("at") or 0))[::-1]


def _first_account(status: Status) -> str:
    """Where it was routed first: what overflowed or was replayed by another account says where it was."""
    for line in status.history:
        if line.get("from"):
            return str(line["from"])
        if line.get("account") and line.get("what") != "replayed":
            return str(line["account"])
    return status.account


def step_in_words(step: Mapping[str, Any]) -> str:
    """One line: what, which attempt, by whom, how long, why, the server's words, what follows."""
    from postier.console.words import cause_in_words, reply_in_words

    parts = [safe(step.get("what", ""))]
    if step.get("attempt"):
        parts.append(f"attempt {safe(step['attempt'])}")
    if step.get("what") == "overflowed":
        parts.append(f"from {safe(step.get('from', ''))} to {safe(step.get('to', ''))}")
    elif step.get("account"):
        driver = f" ({safe(step['driver'])})" if step.get("driver") else ""
        parts.append(f"account {safe(step['account'])}{driver}")
    if isinstance(step.get("took"), int):
        parts.append(f"in {step['took'] / 1e6:.3f} s")
    if step.get("by"):
        parts.append(f"by {safe(step['by'])}")
    for name in ("replay", "new", "old", "worker", "stage", "class"):
        if step.get(name):
            parts.append(f"{name} {safe(step[name])}")
    text = " ".join(parts)
    cause, reply = str(step.get("cause") or step.get("reason") or step.get("why") or ""), reply_in_words(step)
    for more in (cause_in_words(cause) if cause else "", reply, evidence_in_words(step), _what_follows(step)):
        text += f": {more}" if more else ""
    return text


def evidence_in_words(step: Mapping[str, Any]) -> str:
    """What speaks for a mail that may have left: how much was handed over, the last reply."""
    evidence = step.get("evidence")
    if not isinstance(evidence, dict):
        return ""
    return ", ".join(f"{safe(name).replace('_', ' ')} {safe(value)}" for name, value in evidence.items() if value)


def _what_follows(step: Mapping[str, Any]) -> str:
    if step.get("next_at"):
        return f"next at {moment(float(step['next_at']))}"
    if step.get("next_in") is not None:
        return f"again in {span(float(step['next_in']))}"
    return ""
