"""A delivery's state in words for people: what happened, what follows, what they can do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from postier.console.output import moment, safe, span
from postier.ledger.queries import Status

if TYPE_CHECKING:
    from postier.ledger.groups import Group

Accounts = Mapping[str, Mapping[str, Any]]

CAUSES = {
    "authentication_failed": "the login was refused",
    "quota_exhausted": "its allowance is used up",
    "sender_refused": "the server does not let it send",
    "unreachable": "the server could not be reached",
    "tls_unavailable": "the server gave no safe connection",
    "certificate_expired": "the server's certificate has run out",
    "certificate_other_name": "the server's certificate is another host's",
    "certificate_not_trusted": "nobody known signed the server's certificate",
    "too_slow": "the server took longer than it may",
    "protocol": "the server did not speak SMTP",
    "no_smtputf8": "the server takes no international addresses",
    "oauth_unavailable": "the token service gave no token",
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
    "withdrawn": "it was taken back before it was handed over",
    "corrected": "a corrected one took its place",
    "erased": "the data of a person it was for or about was erased",
    "delivery_error": "the driver gave no reason that is known here",
    "account": "the account cannot send",
    "expired": "it ran out of time before it could leave",
    "suppressed": "the recipient or provider wants no mail to this address",
}

# What to do where no server's words say more.
ADVICE = {
    "crashed": "Look at the workers' log for what they died of; replay one delivery before all of them.",
    "worker_died": "Search the provider's log for the Message-ID, then `postier unknown resolve` with --sent or "
    "--resend.",
    "outcome_unknown": "Search the provider's log for the Message-ID, then `postier unknown resolve` with --sent or "
    "--resend.",
    "render": "Read the reason, mend the template or the event (`--edit`), then replay.",
    "undecodable": "Check that workers have the seal key it was sealed with (POSTIER_SEAL_KEYS), then replay.",
    "unknown_kind": "Start workers that know this kind of event, then replay.",
    "unknown_version": "Update the workers to the version the publishers have, then replay.",
    "expired": "See why it waited (account parked, limits, no workers); replay what is still of use.",
    "suppressed": "Ask the recipient for another address; nothing will be sent to this one.",
    "unreachable": "Check the account (`postier accounts check`), then replay.",
    "tls_unavailable": "Check the account's port and security (`postier accounts check`), then replay.",
    "certificate_expired": "The server's owner has to renew it; then resume the account.",
    "certificate_other_name": "Use the host name the certificate was made for, then resume the account.",
    "certificate_not_trusted": "Set ca_file to the authority's certificate if it is your own, then resume the account.",
    "too_slow": "Check the account (`postier accounts check`) and the server's load, then replay.",
    "protocol": "Check that host and port are a mail server's (`postier accounts check`), then replay.",
    "no_smtputf8": "Send by an account whose server offers SMTPUTF8, or ask for an ASCII address (`--edit`).",
    "oauth_unavailable": "Check the token service's address and the network (`postier accounts check`), then replay.",
    "authentication_failed": "Mend the login (`postier accounts check`), resume the account, then replay.",
    "quota_exhausted": "Wait for the quota's reset or raise it at the provider, then replay with --pace.",
    "rate_limited": "Lower the account's limits, then replay with --pace.",
    "sender_refused": "Mend the sender or its domain at the provider, then replay.",
    "recipient_refused": "Check the address with the recipient; correct it with `--edit`, or discard.",
    "email_refused": "Read the reply, correct the event with `--edit`, or discard.",
}

# Of these it is nobody's guess whether the mail arrived.
MAY_HAVE_LEFT = ("outcome_unknown", "worker_died")
_MEANINGS = {
    "recipient_refused": "permanent_recipient",
    "email_refused": "permanent_content",
    "sender_refused": "config",
    "authentication_failed": "auth",
}


def runbook_page(cause: str, state: str = "") -> str:
    """The page of the runbook about a failure; one without a cause has its state's."""
    return cause or state or "delivery_error"


def group_in_words(group: Group) -> str:
    """One sentence: what happened to these deliveries, and the newest reply."""
    cause = cause_in_words(group.cause or group.state)
    state = {"unknown": "may have left", "expired": "ran out of time"}.get(group.state, group.state)
    reply = reply_in_words({"code": group.code, "enhanced": group.enhanced, "words": group.words})
    return f"{group.count} {state}: {cause}" + (f" — {reply}" if reply else "")


def group_advice(group: Group) -> str:
    """One sentence: what a person can do, from the server's words where they say more than the cause."""
    from postier.drivers.replies import ReplyClass, advice, classify

    cause = group.cause or group.state
    if group.state == "expired" and cause in MAY_HAVE_LEFT:
        return "It may have arrived: search the provider's log; replay what is still of use, discard the rest."
    theirs = group.code is not None or cause in _MEANINGS  # other words are ours, of kinds, keys and templates
    if group.state in ("failed", "suppressed") and group.words and theirs:
        meaning = classify(group.code, group.enhanced or None, group.words)
        if meaning is not ReplyClass.SUPPRESS and cause in _MEANINGS:  # the driver knew at what stage it was said
            meaning = ReplyClass(_MEANINGS[cause])
        if meaning not in (ReplyClass.SENT, ReplyClass.RETRY):
            return advice(group.code, group.enhanced or None, group.words, meaning)
    return ADVICE.get(cause, "Read the reply, mend the cause, replay one delivery before all of them.")


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
        if status.facts.get("replay") and status.attempt == 0:  # its last failure is no reason any more
            return f"waiting: replayed, {follows}"
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
        case "waiting" if (status.due or 0) > time.time() and (status.attempt or status.facts.get("deferred")):
            return f"{command} deliveries retry {status.id}"
        case "expired" if status.cause in MAY_HAVE_LEFT:
            return (
                f"search the provider for {safe(status.facts.get('message_id', 'its Message-ID'))}, for it may have "
                f"arrived; then {command} failed replay or failed discard {status.id}"
            )
        case "failed" | "expired":
            return f"mend the cause, then {command} failed replay {status.id}"
        case "unknown":
            return (
                f"search the provider for {safe(status.facts.get('message_id', 'its Message-ID'))}; then "
                f"{command} unknown resolve {status.id} --sent or --resend"
            )
        case "suppressed":
            return f"correct the address with {command} failed replay {status.id} --edit, or discard it"
    return ""
