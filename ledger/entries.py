"""What the ledger hands out and what it is told: claimed deliveries and settle entries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from postier.ledger.store import Argument
from postier.settings.logs import redact

Entry = tuple[Argument, ...]

OK, STALE, SUPERSEDED = 1, 0, 2
PARKED, RECOVERED, BLAMED = 2, 3, 4
FORGOTTEN = 5  # the ledger knows no such delivery (any more)

_WORDS = 300
_USUAL = frozenset(("mark", "sent", "keep", "free"))


class Claimed(NamedTuple):
    """One delivery that this worker may work on, as long as it holds `fence`. Times are Redis microseconds.

    `attempt` counts from 1; `crashes` counts workers that died holding it.
    """

    id: str
    fence: int
    attempt: int
    crashes: int
    tenant: str
    kind: str
    version: int
    event: str
    message_id: str
    deadline: int
    accepted_at: int
    on_unknown: str
    payload: bytes
    recipient: str
    urgent: bool
    packet: str

    def __repr__(self) -> str:
        return f"Claimed(id={self.id!r}, fence={self.fence}, attempt={self.attempt}, kind={self.kind!r})"

    @classmethod
    def read(cls, row: Sequence[Any]) -> Claimed:
        """Read one row of the claim script."""
        tenant, kind, version, event, message_id, deadline, accepted_at, on_unknown = row[4:12]
        return cls(
            row[0].decode(), row[1], row[2], row[3], _text(tenant), _text(kind), int(version), _text(event),
            _text(message_id), int(deadline), int(accepted_at), _text(on_unknown), row[12],
            row[13].decode("utf-8", "replace"), row[14] == b"u", row[15].decode(),
        )  # fmt: skip


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class Handed:
    """A conversation's worth of deliveries of one account."""

    name: str
    account: str
    deliveries: tuple[Claimed, ...]

    @classmethod
    def read(cls, row: Sequence[Any]) -> Handed:
        """Read one conversation of the claim script."""
        return cls(row[0].decode(), row[1].decode(), tuple(Claimed.read(item) for item in row[2:]))


class Reply(NamedTuple):
    """What the other side said last: SMTP or HTTP code, RFC 3463 code, its words."""

    code: int | None = None
    enhanced: str | None = None
    words: str = ""

    def arguments(self) -> tuple[Argument, Argument, Argument]:
        """As the settle script takes it. Servers quote addresses and links back; those stay out of the ledger."""
        return self.code or "", self.enhanced or "", redact(self.words)[:_WORDS]


def history(what: str, **facts: Any) -> str:
    """One line of a delivery's timeline; empty facts are left out, addresses and links in `words` masked."""
    if facts.get("words"):
        facts["words"] = redact(facts["words"])[:_WORDS]
    return json.dumps({"what": what, **{key: value for key, value in facts.items() if value not in (None, "")}})


def mark(delivery: Claimed) -> Entry:
    """The next octet may make the provider own the mail."""
    return ("mark", delivery.id, delivery.fence)


def sent(
    delivery_id: str, fence: int, reply: Reply, *, provider_id: str | None, took: int, timeline: str = ""
) -> Entry:
    """The provider took it; `took` is microseconds."""
    return ("sent", delivery_id, fence, *reply.arguments(), (provider_id or "")[:200], took, timeline)


def retry(
    delivery: Claimed, reply: Reply, *, delay: float, spend: bool, cause: str, timeline: str, refund: bool = False
) -> Entry:
    """Wait `delay` seconds; 0 is the head of its lane. What would wait past its deadline expires.

    `spend` says whether this attempt counts, `refund` whether the account's quota gets its mail back.
    """
    micros = int(delay * 1e6)
    return ("retry", delivery.id, delivery.fence, micros, int(spend), int(refund), cause, *reply.arguments(), timeline)


def end(delivery: Claimed, reply: Reply, *, state: str, cause: str, timeline: str) -> Entry:
    """The delivery ends as `failed`, `expired`, `unknown`, `suppressed` or `discarded`."""
    return ("end", delivery.id, delivery.fence, state, cause, *reply.arguments(), timeline)


def back(delivery: Claimed, *, refund: bool = True) -> Entry:
    """Never started: to the head of its lane, attempt returned, and the permit unless another delivery returns it."""
    return ("back", delivery.id, delivery.fence, int(refund))


def withdraw(delivery: Claimed, *, timeline: str) -> Entry:
    """Nothing of it left, though `sending` was or may have been written: to the head of its lane, attempt returned.

    Undoes the `unknown` of a lease that ran out meanwhile, too.
    """
    return ("withdraw", delivery.id, delivery.fence, timeline)


class Kept(NamedTuple):
    """Connections a worker keeps open for an account between conversations. A later word has a greater `at`."""

    connections: int = 0
    at: int = 0


NONE_KEPT = Kept()


def free(
    conversation: str, account: str, verdict: Literal["good", "bad", "none"], words: str = "", *,
    each: float = 0.0, kept: Kept = NONE_KEPT,
) -> Entry:  # fmt: skip
    """The conversation is over: `good` when the server answered, `bad` when it could not be reached, else `none`.

    `each` is how many seconds a mail took, 0 when nobody knows: the next conversations are as long as fits that pace.
    `kept` includes a connection that the conversation left open. Answered with PARKED when the account's breaker
    opened, with RECOVERED when it proved well again.
    """
    return ("free", conversation, account, verdict, words[:_WORDS], int(each * 1e6), *kept)


def keep(worker: str, account: str, kept: Kept) -> Entry:
    """The worker keeps so many connections open between conversations: others may open the rest of the account's."""
    return ("keep", worker, account, *kept)


def park(account: str, *, state: Literal["parked", "needs_login"], seconds: float, cause: str, words: str) -> Entry:
    """The account stops and keeps its mail, for `seconds` or (0) until a person or a new credential wakes it."""
    return ("park", account, state, int(seconds * 1e6), cause, redact(words)[:_WORDS])


def slow(account: str, *, seconds: float) -> Entry:
    """The provider wants less: half the pace, and nothing for `seconds`."""
    return ("slow", account, "", int(seconds * 1e6))


def split(account: str, *, recipients: int) -> Entry:
    """The provider takes fewer than `recipients` in a mail."""
    return ("split", account, "", recipients)


def stall(account: str) -> Entry:
    """A conversation with the account hangs: none else should begin meanwhile."""
    return ("stall", account, "")


def wait(account: str, *, seconds: float) -> Entry:
    """Begin nothing with the account for `seconds`."""
    return ("wait", account, "", int(seconds * 1e6))


def usual(entry: Entry) -> bool:
    """Whether this is an entry of mails that go well: a smaller script settles those."""
    return entry[0] in _USUAL and not (entry[0] == "free" and entry[3] == "bad")


def flatten(entries: Iterable[Entry]) -> list[Argument]:
    """Entries as script arguments."""
    return [value for entry in entries for value in entry]
