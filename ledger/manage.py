"""What people do to deliveries and accounts: discard, resolve, correct, pause, resume. Replays are in `replay.py`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from postier.ledger.audit import Audit
from postier.ledger.groups import WAITING_FOR_A_PERSON
from postier.ledger.lanes import tidy_lanes
from postier.ledger.payload import Payload, open_payload
from postier.ledger.publish import Accepted, Publisher, admit_and_route
from postier.ledger.queries import Queries, Status
from postier.ledger.replay import BATCH, batches
from postier.ledger.store import Store, translated
from postier.schemas.account import Registry
from postier.schemas.edge import read_envelope
from postier.schemas.errors import InvalidEvent, LedgerUnavailable
from postier.schemas.events import Recipient
from postier.schemas.strict_json import read_object
from postier.settings.logs import redact
from postier.settings.seal import Sealer

Answer = Literal["done", "not_possible", "unknown_id"]

_ANSWERS: dict[int, Answer] = {1: "done", 0: "not_possible", -1: "unknown_id"}


class Management:
    """Changes by a person, whose name `who` is written into each timeline. All raise LedgerUnavailable.

    Repeating is safe: what is done already answers `not_possible`.
    """

    def __init__(self, store: Store, who: str) -> None:
        self._store = store
        self._who = who[:80]
        self._audit = Audit(store)

    def pause(self, account: str) -> bool:
        """Stop an account; its mail waits. False when the ledger does not know it."""
        return self._steer("pause", account)

    def resume(self, account: str) -> bool:
        """Let a paused or parked account go on. False when the ledger does not know it."""
        return self._steer("resume", account)

    def _steer(self, verb: str, account: str) -> bool:
        known = bool(self._store.run("manage", (verb, account, self._who)) == 1)
        if known:
            self._audit.record(who=self._who, what=f"account.{verb}d", subject=account)
        return known

    def discard(self, ids: Iterable[str], reason: str) -> Iterator[tuple[str, Answer]]:
        """Give up on deliveries that wait, for their turn or for a person; their payload is removed.

        Addresses in the reason are masked: the audit keeps it for ever.
        """
        try:
            yield from self._each("discard", ids, "deliveries.discarded", redact(reason)[:300])
        finally:
            tidy_lanes(self._store)

    def resolve(self, ids: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """Say of deliveries whose outcome is unknown that they were sent."""
        yield from self._each("resolve", ids, "deliveries.resolved_as_sent")

    def retry(self, ids: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """Let deliveries that wait for their next attempt be tried now, in their account's turn and by its limits."""
        yield from self._each("retry", ids, "deliveries.hurried")

    def between_attempts(self, account: str | None = None) -> Iterator[str]:
        """Ids of what waits for its next attempt, of one account or of all; the cost is by what waits for any time."""
        redis, key = self._store.redis, self._store.key
        with translated():
            for page in batches((item.decode() for item, _ in redis.zscan_iter(key("scheduled"))), BATCH):
                pipe = redis.pipeline(transaction=False)
                for item in page:
                    pipe.hmget(key(f"delivery:{item}"), "account", "attempt", "deferred")
                for item, (name, attempt, deferred) in zip(page, pipe.execute(), strict=True):
                    if (int(attempt or 0) > 0 or deferred) and account in (None, (name or b"").decode()):
                        yield item

    def _each(self, verb: str, ids: Iterable[str], what: str, *more: str) -> Iterator[tuple[str, Answer]]:
        done, first = 0, ""
        try:
            for batch in batches(ids, BATCH):
                answers: Sequence[int] = self._store.run("manage", (verb, self._who, *more, *batch))
                for delivery_id, answer in zip(batch, answers, strict=True):
                    done += answer == 1
                    first = first or (delivery_id if answer == 1 else "")
                    yield delivery_id, _ANSWERS[answer]
        finally:
            if done:
                details: dict[str, Any] = {"reason": more[0]} if more else {}
                self._audit.record(who=self._who, what=what, subject=first, count=done, details=details)

    def content(self, status: Status, sealer: Sealer) -> Payload | None:
        """What a delivery keeps of its event; None when that is gone. The look is written to the audit first.

        Raises Unsealable without the key it was sealed with.
        """
        with translated():
            sealed = self._store.redis.get(self._store.key(f"payload:{status.id}"))
        if sealed is None:
            return None
        self._audit.record(who=self._who, what="content.revealed", subject=status.id)
        return open_payload(sealer, status.id, sealed)

    def correct(
        self, status: Status, data: bytes, *, payload: Payload, registry: Registry, sealer: Sealer, account: str | None
    ) -> Accepted:
        """Publish `data` (an event's fields as JSON) in place of a delivery that waits for a person.

        The event passes the same edge as any other and goes to the old delivery's recipient alone where the kind's
        recipients are configured, by its account unless `account` names another. The old one is kept, discarded, with a
        link to the new one. The same correction again answers with the same delivery. Raises InvalidEvent, and nothing
        is changed.
        """
        event_id = "c-" + hashlib.sha256(status.id.encode() + b"\0" + data).hexdigest()[:40]
        self._refuse_second_correction(status, event_id)
        given: dict[str, Any] = {"id": event_id, "kind": status.kind, "tenant": status.tenant}
        given["data"] = read_object(data)
        given |= {"reply_to": payload.reply_to} if payload.reply_to else {}
        # Who published may have chosen the account: it leaves by its own like any replay, while there is one.
        own = status.account if status.account in registry.accounts else None
        given |= {"account": account or own} if account or own else {}
        envelope = read_envelope(json.dumps(given))
        admitted = admit_and_route(envelope, registry)
        if envelope.data.form() is not None:
            to = payload.recipient
            recipient = Recipient.model_validate({"address": to.address, "name": to.name, "locale": to.locale})
            admitted = dataclasses.replace(admitted, recipients=(recipient,))
        answer = Publisher(self._store, sealer).publish([admitted])[0]
        if isinstance(answer, InvalidEvent | LedgerUnavailable):
            raise answer
        if self._store.run("manage", ("correct", self._who, status.id, answer.deliveries[0])) != 1:
            self._store.run("manage", ("discard", self._who, "the old one left meanwhile", *answer.deliveries))
            raise InvalidEvent("the delivery was replayed or discarded meanwhile", field="state")
        details = {"new": answer.deliveries[0]}
        self._audit.record(who=self._who, what="delivery.corrected", subject=status.id, details=details)
        return answer

    def _refuse_second_correction(self, status: Status, event_id: str) -> None:
        if status.state in WAITING_FOR_A_PERSON:
            return
        known = Queries(self._store).deliveries_of(status.tenant, event_id)
        if not known or status.facts.get("replaced_by") not in known:
            raise InvalidEvent(f"the delivery is {status.state}: it does not wait for a person", field="state")
