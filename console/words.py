"""A delivery's state in words for people: what happened, what follows, what they can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postier.console.output import moment, safe, span
from postier.ledger.queries import Status

Accounts = Mapping[str, Mapping[str, Any]]

CAUSES = {
    "authentication_failed": "the login was refused",
    "quota_exhausted": "its allowance is used up",
    "sender_refused": "the server does not let it send",
    "unreachable": "the server could not be reached",
    "rate_limited": "the provider asked to slow down",
    "temporary": "the server refused for the moment",
    "refused": "the mail was refused for good",
    "recipient_refused": "the recipient's address takes no mail",
    "email_refused": "the content was not taken",
    "outcome_unknown": "the connection broke after the mail was handed over",
    "worker_died": "the worker died while the mail was handed over",
    "crashed": "workers died while they held it",
    "render": "the mail could not be written from its event",
    "undecodable": "its record cannot be read",
    "unknown_kind": "no worker here knows its kind",
    "unknown_version": "it is of a later version than the workers here",
    "superseded": "a newer one took its place",
}


def cause_in_words(cause: str) -> str:
    """A cause for people; one that has no words here is shown as it is."""
    return CAUSES.get(cause, safe(cause).replace("_", " "))


def reply_in_words(facts: Mapping[str, Any]) -> str:
    """The other side's last reply: code and words."""
    parts = (facts.get("code"), facts.get("enhanced"), facts.get("words"))
    text = str(facts.get("words") or "")
    return safe(" ".join(str(part) for part in parts if part and (part is parts[2] or str(part) not in text[:12])))


def state_in_words(status: Status, accounts: Accounts, now: float) -> str:
    """One clause: where the delivery stands and why."""
    cause = cause_in_words(status.cause) if status.cause else ""
    match status.state:
        case "waiting":
            return _waiting(status, accounts.get(status.account, {}), now, cause)
        case "leased":
            return f"a worker has it in hand (attempt {status.attempt})"
        case "sending":
            return f"it is being handed over (attempt {status.attempt})"
        case "sent":
            return "the provider took it"
        case "failed":
            return f"failed: {cause or 'it will not be tried again'}"
        case "unknown":
            return f"it may have left: {cause or 'nobody can know'}"
        case "expired":
            return "it ran out of time" + (f": {cause}" if cause else "")
        case "discarded":
            reason = status.facts.get("reason")
            return "given up" + (f": {safe(reason)}" if reason else f": {cause}" if cause else "")
        case "suppressed":
            return f"not to be sent to this address: {cause or 'it takes no mail'}"
    return safe(status.state)


def account_in_words(name: str, facts: Mapping[str, Any]) -> str:
    """An account that stands still, and why; empty for one that sends."""
    state = facts.get("state")
    if state == "paused":
        by = f" by {safe(facts['by'])}" if facts.get("by") else ""
        return f"account {safe(name)} is paused{by}"
    if state == "needs_login":
        return f"account {safe(name)} needs a new login by a person"
    if state == "parked":
        until = f", tried again at {moment(facts['until'])}" if facts.get("until") else ""
        return f"account {safe(name)} is parked: {cause_in_words(str(facts.get('reason', '')))}{until}"
    return ""


def _waiting(status: Status, account: Mapping[str, Any], now: float, cause: str) -> str:
    standing = account_in_words(status.account, account)
    if standing:
        return f"waiting: {standing}"
    if status.due is not None and status.due > now:
        follows = f"attempt {status.attempt + 1} in {span(status.due - now)}"
        return f"waiting: {cause}; {follows}" if cause else f"waiting: {follows}"
    return "waiting for its turn"


def advice(status: Status, accounts: Accounts, command: str = "postier") -> str:
    """What a person can do; empty when nothing is to be done."""
    account = accounts.get(status.account, {})
    match status.state:
        case "waiting" if account.get("state") == "paused":
            return f"{command} accounts resume {safe(status.account)}"
        case "waiting" if account.get("state") in ("parked", "needs_login"):
            name = safe(status.account)
            return f"{command} accounts check {name}, mend it, then {command} accounts resume {name}"
        case "failed" | "expired":
            return f"mend the cause, then {command} failed replay {status.id}"
        case "unknown":
            return f"ask the recipient; {command} failed replay {status.id} sends it again"
    return ""
