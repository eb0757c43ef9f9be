"""The life of a delivery in a worker, top to bottom: route, render, hand to the driver, write the outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from postier.drivers.base import Result
from postier.ledger.entries import BLAMED, Claimed, Entry, Reply, end, history
from postier.ledger.payload import Unsealable, open_payload
from postier.schemas.edge import reopen
from postier.schemas.email import Email
from postier.schemas.errors import (
    AccountError,
    InvalidEvent,
    LedgerUnavailable,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    RenderError,
    SenderRefused,
    TemporaryError,
    Unreachable,
)
from postier.schemas.receipt import Receipt
from postier.settings.logs import log
from postier.settings.seal import Sealer
from postier.workers.conversation import Conversation, Mail, Withdrawn
from postier.workers.logins import NotNow
from postier.workers.outcomes import decide, react, unopened
from postier.workers.receipts import ReceiptFile
from postier.workers.render import Stamp
from postier.workers.route import Roster, Way

# After one of these the next delivery of the same account would fare no better: the rest goes back untouched.
_STOPS = (Unreachable, RateLimited)
# After one of these it stands still at once, and its mail keeps its order.
_STANDS = (AccountError, NotNow)
# A mail that is sealed with a key of others: about a quarter of an hour for urgent mail, an hour for other.
_SEALED_TRIES = 8


class Deliverer:
    """Works through conversations. One per worker process, used by all its threads."""

    def __init__(self, roster: Roster, sealer: Sealer, receipts: ReceiptFile) -> None:
        self._roster = roster
        self._sealer = sealer
        self._receipts = receipts
        self._tells_all = log().is_enabled_for(logging.DEBUG)  # asking takes a microsecond

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
                    self._settle(conversation, attempts.finished(email), result)
            except Withdrawn:
                continue
            except LedgerUnavailable:
                conversation.stop()
            except Exception as error:
                log().exception("driver.failed", account=conversation.account, driver=way.account.driver)
                self._blame_driver(conversation, attempts, type(error).__name__)

    def _render(self, conversation: Conversation, way: Way, mail: Mail) -> Email | None:
        """The rendered email, or None when this mail can never be rendered: that is settled here."""
        first = mail[0]
        try:
            payloads = [open_payload(self._sealer, delivery.id, delivery.payload) for delivery in mail]
            event = reopen(first.kind, first.version, payloads[0].data)
            stamp = Stamp(
                kind=first.kind, tenant=first.tenant, delivery_id=first.id, message_id=first.message_id,
                reply_to=payloads[0].reply_to, handing_over=partial(conversation.hand_over, mail),
            )  # fmt: skip
            if len(mail) == 1:
                return way.renderer.render(event, recipient=payloads[0].recipient, **stamp)
            return way.renderer.render_packet(event, recipients=[payload.recipient for payload in payloads], **stamp)
        except (Unsealable, InvalidEvent, RenderError, ValueError) as error:
            if isinstance(error, Unsealable) and error.elsewhere and first.attempt < _SEALED_TRIES:
                self._leave_to_others(conversation, mail, str(error))
                return None
            cause = "render" if isinstance(error, RenderError) else getattr(error, "code", "undecodable")
            self._fail(conversation, mail, cause, str(error))
        except Exception as error:  # a template or event class of a third party
            self._fail(conversation, mail, "render", f"rendering failed: {type(error).__name__}")
        return None

    def _fail(self, conversation: Conversation, mail: Mail, cause: str, words: str) -> None:
        for delivery in mail:
            line = history("failed", attempt=delivery.attempt, account=conversation.account, cause=cause, words=words)
            over = end(delivery, Reply(words=words), state="failed", cause=cause, timeline=line)
            conversation.settle(delivery, over)
            log().warning("delivery.failed", delivery=delivery.id, kind=delivery.kind, cause=cause, reason=words)

    def _leave_to_others(self, conversation: Conversation, mail: Mail, words: str) -> None:
        """This worker has not the key, which another may have, or this one soon, so that it is tried again."""
        for delivery in mail:
            conversation.settle(delivery, unopened(delivery, words, account=conversation.account))
            log().error("delivery.unopened", delivery=delivery.id, account=conversation.account, reason=words)

    def _settle(self, conversation: Conversation, attempt: _Attempt, result: Result) -> None:
        took = time.monotonic() - attempt.started
        if isinstance(result, Receipt) and not result.refused:
            self._settle_sent(conversation, attempt.mail, result, took)
            return
        refused = {one.recipient: one.error for one in result.refused} if isinstance(result, Receipt) else {}
        recipients = attempt.email.recipients
        if isinstance(result, _STANDS):
            self._stand_still(conversation, attempt.mail, result, took)
            return
        for delivery, recipient in zip(attempt.mail, recipients, strict=True):
            verdict = refused.get(recipient, result)
            shared = len(recipients) > 1
            entry = decide(delivery, verdict, account=conversation.account, took=took, shared=shared)
            if isinstance(verdict, Receipt):
                self._receipts.write(entry)
            conversation.settle(delivery, entry)
            self._tell(conversation.account, delivery, verdict, took)
        if isinstance(result, Unreachable):
            conversation.verdict, conversation.words = "bad", result.text
        elif conversation.verdict == "none":
            conversation.verdict = "good"
        reaction = react(conversation.account, result, recipients=len(recipients))
        if reaction is not None:
            conversation.react(reaction)
        if isinstance(result, _STOPS):
            conversation.stop()

    def _settle_sent(self, conversation: Conversation, mail: Mail, receipt: Receipt, took: float) -> None:
        """The usual end: everybody got it, which asks nothing of the account."""
        for delivery in mail:
            entry = decide(delivery, receipt, account=conversation.account, took=took)
            self._receipts.write(entry)
            conversation.settle(delivery, entry)
            self._tell(conversation.account, delivery, receipt, took)
        if conversation.verdict == "none":
            conversation.verdict = "good"

    def _tell(self, account: str, delivery: Claimed, result: Result, took: float) -> None:
        """Mail that was simply sent is not worth a line above the debug level."""
        if self._tells_all or not isinstance(result, Receipt):
            tell(account, delivery, result, took)

    def _refuse_first(self, conversation: Conversation, error: AccountError) -> None:
        self._stand_still(conversation, conversation.next() or (), error, 0)

    def _stand_still(self, conversation: Conversation, mail: Mail, error: AccountError | NotNow, took: float) -> None:
        """The account is at fault, so it stops first and its mail waits; unless the mail proves to be what is wrong."""
        entries: list[tuple[Claimed, Entry]] = [
            (delivery, decide(delivery, error, account=conversation.account, took=took)) for delivery in mail
        ]
        alone = isinstance(error, SenderRefused) and len(entries) == 1
        if alone and conversation.settle_now(*entries.pop()) == BLAMED:
            first = mail[0]
            log().warning("delivery.failed", delivery=first.id, kind=first.kind, cause=error.cause, reason=error.text)
            return
        reaction = react(conversation.account, error, recipients=len(mail))
        if reaction is not None:
            conversation.react(reaction)
        conversation.stop_behind(mail)
        for delivery, entry in reversed(entries):
            conversation.settle(delivery, entry)
        for delivery in mail:
            self._tell(conversation.account, delivery, error, took)

    def _blame_driver(self, conversation: Conversation, attempts: _Attempts, name: str) -> None:
        """A driver broke its contract: what it held is retried, or unknown when it may have left."""
        for attempt in attempts.left():
            text = f"the driver failed: {name}"
            may_have_left = conversation.was_handed_over(attempt.mail)
            result = OutcomeUnknown(text) if may_have_left else TemporaryError(text)
            self._settle(conversation, attempt, result)


@dataclass(slots=True)
class _Attempt:
    """One mail the driver has: its deliveries, the rendered email, when it was started (monotonic seconds)."""

    mail: Mail
    email: Email
    started: float


class _Attempts(Iterator[Email]):
    """The conversation's emails, rendered one by one as the driver asks for them."""

    def __init__(
        self, conversation: Conversation, way: Way, render: Callable[[Conversation, Way, Mail], Email | None]
    ) -> None:
        self._conversation = conversation
        self._way = way
        self._render = render
        self._attempts: dict[str, _Attempt] = {}

    def __next__(self) -> Email:
        while (mail := self._conversation.next()) is not None:
            started = time.monotonic()
            email = self._render(self._conversation, self._way, mail)
            if email is not None:
                self._attempts[email.delivery_id] = _Attempt(mail, email, started)
                return email
        raise StopIteration

    def finished(self, email: Email) -> _Attempt:
        """The attempt a result belongs to."""
        return self._attempts.pop(email.delivery_id)

    def left(self) -> list[_Attempt]:
        """Attempts without a result."""
        left = list(self._attempts.values())
        self._attempts.clear()
        return left


def tell(account: str, delivery: Claimed, result: Result, took: float) -> None:
    """One log line an outcome."""
    facts = {
        "delivery": delivery.id, "kind": delivery.kind, "account": account, "attempt": delivery.attempt,
        "seconds": round(took, 3), "code": result.code,
    }  # fmt: skip
    match result:
        case Receipt():
            log().debug("delivery.sent", **facts)
        case RateLimited() | AccountError():
            log().info("delivery.deferred", cause=result.cause, reason=result.text, **facts)
        case OutcomeUnknown():
            log().warning("delivery.unknown", cause=result.cause, reason=result.text, **facts)
        case PermanentError():
            log().warning("delivery.failed", cause=result.cause, reason=result.text, **facts)
        case _:
            log().info("delivery.retried", cause=result.cause, reason=result.text, **facts)
