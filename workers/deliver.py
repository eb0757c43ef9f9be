"""The life of a delivery in a worker, top to bottom: route, render, hand to the driver, write the outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

from postier.drivers.base import Result
from postier.ledger.entries import Claimed, Reply, end, history
from postier.ledger.payload import Unsealable, open_payload
from postier.schemas.edge import reopen
from postier.schemas.email import Email
from postier.schemas.errors import (
    AccountError,
    DeliveryError,
    InvalidEvent,
    LedgerUnavailable,
    OutcomeUnknown,
    RateLimited,
    RenderError,
    Unreachable,
)
from postier.schemas.receipt import Receipt
from postier.settings.logs import log
from postier.settings.seal import Sealer
from postier.workers.conversation import Conversation, Withdrawn
from postier.workers.outcomes import decide
from postier.workers.receipts import ReceiptFile
from postier.workers.route import Roster, Way

# After one of these the next delivery of the same account would fare no better: the rest goes back untouched.
_STOPS = (Unreachable, AccountError, RateLimited)


class Deliverer:
    """Works through conversations. One per worker process, used by all its threads."""

    def __init__(self, roster: Roster, sealer: Sealer, receipts: ReceiptFile) -> None:
        self._roster = roster
        self._sealer = sealer
        self._receipts = receipts

    def deliver(self, conversation: Conversation) -> None:
        """Send what the conversation holds. Every outcome is settled with the conversation; nothing is raised."""
        try:
            way = self._roster.way(conversation.account)
        except AccountError as error:
            self._refuse_first(conversation, error)
            return
        while conversation.has_more:
            attempts = _Attempts(conversation, way, self._render)
            try:
                for email, result in way.driver.converse(attempts):
                    self._settle(conversation, way, attempts.started[email.delivery_id], result)
            except Withdrawn:
                continue
            except LedgerUnavailable:
                conversation.stop()

    def _render(self, conversation: Conversation, way: Way, delivery: Claimed) -> Email | None:
        """The rendered email, or None when this delivery can never be rendered: that is settled here."""
        try:
            payload = open_payload(self._sealer, delivery.id, delivery.payload)
            event = reopen(delivery.kind, delivery.version, payload.data)
            return way.renderer.render(
                event, kind=delivery.kind, tenant=delivery.tenant, recipient=payload.recipient,
                delivery_id=delivery.id, message_id=delivery.message_id, reply_to=payload.reply_to,
                handing_over=partial(conversation.hand_over, delivery),
            )  # fmt: skip
        except (Unsealable, InvalidEvent, RenderError, ValueError) as error:
            cause = "render" if isinstance(error, RenderError) else getattr(error, "code", "undecodable")
            self._fail(conversation, delivery, cause, str(error))
        except Exception as error:  # a template or event class of a third party
            self._fail(conversation, delivery, "render", f"rendering failed: {type(error).__name__}")
        return None

    def _fail(self, conversation: Conversation, delivery: Claimed, cause: str, words: str) -> None:
        timeline = history("failed", attempt=delivery.attempt, account=conversation.account, cause=cause, words=words)
        conversation.settle(delivery, end(delivery, Reply(words=words), state="failed", cause=cause, timeline=timeline))
        log().warning("delivery.failed", delivery=delivery.id, kind=delivery.kind, cause=cause, reason=words)

    def _settle(self, conversation: Conversation, way: Way, started: tuple[Claimed, float], result: Result) -> None:
        delivery, at = started
        took = time.monotonic() - at
        entries = decide(delivery, result, account=way.account.name, took=took)
        if isinstance(result, Receipt):
            self._receipts.write(entries[0])
        conversation.settle(delivery, *entries)
        _tell(way, delivery, result, took)
        if isinstance(result, _STOPS):
            conversation.stop()

    def _refuse_first(self, conversation: Conversation, error: AccountError) -> None:
        delivery = conversation.next()
        if delivery is not None:
            conversation.settle(delivery, *decide(delivery, error, account=conversation.account, took=0))
            log().error("account.parked", account=conversation.account, cause=error.cause, reason=error.text)
        conversation.stop()


class _Attempts(Iterator[Email]):
    """The conversation's emails, rendered one by one as the driver asks for them."""

    def __init__(
        self, conversation: Conversation, way: Way, render: Callable[[Conversation, Way, Claimed], Email | None]
    ) -> None:
        self.started: dict[str, tuple[Claimed, float]] = {}
        self._conversation = conversation
        self._way = way
        self._render = render

    def __next__(self) -> Email:
        while (delivery := self._conversation.next()) is not None:
            started = time.monotonic()
            email = self._render(self._conversation, self._way, delivery)
            if email is not None:
                self.started[delivery.id] = (delivery, started)
                return email
        raise StopIteration


def _tell(way: Way, delivery: Claimed, result: Result, took: float) -> None:
    if isinstance(result, Receipt) and not log().is_enabled_for(logging.DEBUG):
        return
    facts = {
        "delivery": delivery.id, "kind": delivery.kind, "account": way.account.name, "driver": way.account.driver,
        "attempt": delivery.attempt, "seconds": round(took, 3), "code": result.code,
    }  # fmt: skip
    match result:
        case Receipt():
            log().debug("delivery.sent", **facts)
        case AccountError():
            log().error("account.parked", cause=result.cause, reason=result.text, **facts)
        case RateLimited():
            log().info("delivery.deferred", cause=result.cause, reason=result.text, **facts)
        case OutcomeUnknown():
            log().warning("delivery.unknown", cause=result.cause, reason=result.text, **facts)
        case DeliveryError():
            log().info("delivery.not_sent", cause=result.cause, reason=result.text, **facts)
