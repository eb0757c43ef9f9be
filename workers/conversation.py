"""One conversation's worth of deliveries in a worker's hands: what is unstarted, under way and settled."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile
from typing import Literal

from postier.ledger.entries import (
    NONE_KEPT,
    OK,
    PARKED,
    RECOVERED,
    SUPERSEDED,
    Claimed,
    Entry,
    Handed,
    Kept,
    Reply,
    back,
    end,
    free,
    history,
    mark,
    withdraw,
)
from postier.schemas.errors import LedgerUnavailable
from postier.settings.logs import log
from postier.workers.settler import Settler, Ticket

Mail = tuple[Claimed, ...]

# At most so many mails are marked before their turn, when they leave within this time (s); a mark that old is repeated.
_AHEAD = 7
_MOMENT = 0.05
_FRESH = 0.25


class Withdrawn(Exception):
    """The mail may not leave: a lease is lost or it was superseded. Nothing of it was sent."""


def _mails(deliveries: Iterable[Claimed]) -> deque[Mail]:
    """Deliveries as mails: neighbours of one packet travel together."""
    mails: deque[list[Claimed]] = deque()
    for delivery in deliveries:
        if mails and delivery.packet and mails[-1][0].packet == delivery.packet:
            mails[-1].append(delivery)
        else:
            mails.append([delivery])
    return deque(tuple(mail) for mail in mails)


class Conversation:
    """Mails of one account that one thread works through, and the outcomes it still owes the ledger.

    A mail is one delivery, or the deliveries of a packet. `next()` starts mails one by one until `stop()`; whatever is
    unstarted then goes back to its lane at once. `verdict` tells the ledger how the account behaved, `progress_at`
    (monotonic seconds) when its server last did something. `kept` counts the connections this process keeps open for
    the account when the conversation is over.
    """

    def __init__(
        self, handed: Handed, settler: Settler, *, seconds: float, kept: Callable[[str], Kept] = lambda _: NONE_KEPT
    ) -> None:
        self.name = handed.name
        self.account = handed.account
        self.verdict: Literal["good", "bad", "none"] = "none"
        self.words = ""
        self.progress_at = time.monotonic()
        self._settler = settler
        self._kept = kept
        self._lock = threading.Lock()
        self._unstarted = _mails(handed.deliveries)
        self._under_way: dict[str, Claimed] = {}
        self._handed_over: set[str] = set()
        self._unanswered: set[str] = set()
        self._given_back: set[str] = set()
        self._ahead: dict[str, float] = {}  # marked before its turn: until when that is good enough
        self._begun_at = self._ended_at = 0.0
        self._ended = 0
        self._tickets: list[Ticket] = []
        self._free: Ticket | None = None
        self._stop_at = time.monotonic() + seconds

    @property
    def has_more(self) -> bool:
        """Whether mails wait to be started."""
        return bool(self._unstarted)

    def held(self) -> list[Claimed]:
        """Everything not settled yet, for the renewal of leases."""
        with self._lock:
            return [*(delivery for mail in self._unstarted for delivery in mail), *self._under_way.values()]

    def next(self) -> Mail | None:
        """Start the next mail; None when there is none or the conversation's time is over."""
        if time.monotonic() > self._stop_at and self._under_way:
            self._give_back_unstarted()
        with self._lock:
            if not self._unstarted:
                return None
            mail = self._unstarted.popleft()
            self._under_way.update({delivery.id: delivery for delivery in mail})
            return mail

    def stop(self) -> None:
        """Give back everything of which nothing was handed over. Safe from any thread, any number of times.

        A driver may hold the next mail ready while a server thinks: when it asks to hand that over, it is Withdrawn.
        """
        self._give_back_unstarted()
        with self._lock:
            ready = _mails(d for d in self._under_way.values() if d.id not in self._handed_over)
            self._given_back.update(delivery.id for mail in ready for delivery in mail)
            self._ahead.clear()  # a mark made before does not hold for what is given back
        self._give_back(ready)

    def _give_back_unstarted(self) -> None:
        with self._lock:
            unstarted, self._unstarted = self._unstarted, deque()
        self._give_back(unstarted)

    def _give_back(self, mails: deque[Mail]) -> None:
        """To the head of their lane in their order; of each mail the one permit is returned once."""
        if mails:
            self._put([back(one, refund=one is mail[0]) for mail in reversed(mails) for one in reversed(mail)])

    def lose(self, ids: set[str]) -> None:
        """Forget deliveries whose lease another worker has; those under way find out when they ask to hand over."""
        with self._lock:
            kept = (tuple(delivery for delivery in mail if delivery.id not in ids) for mail in self._unstarted)
            self._unstarted = deque(mail for mail in kept if mail)
            self._ahead.clear()

    def hand_over(self, mail: Mail) -> None:
        """Write `sending`. Raises Withdrawn, or LedgerUnavailable when nobody can write it: nothing may leave then."""
        now = time.monotonic()
        self._begun_at = self._begun_at or now
        with self._lock:
            given_back = any(delivery.id in self._given_back for delivery in mail)
            fresh = {delivery.id for delivery in mail} - self._handed_over
            if not given_back:
                self._handed_over.update(fresh)
                if all(self._ahead.get(delivery.id, 0.0) > now for delivery in mail):
                    return
        if given_back:
            for delivery in mail:
                self._forget(delivery)
            raise Withdrawn
        soon = self._soon()
        try:
            answers = self._mark((*mail, *soon))
        except LedgerUnavailable:
            self._unanswered.update(fresh)  # perhaps it is written; what is certain is that nothing left
            raise
        with self._lock:
            waiting = {delivery.id for others in self._unstarted for delivery in others}
            for delivery, answer in zip(soon, answers[len(mail) :], strict=True):
                if answer == OK and delivery.id in waiting:
                    self._ahead[delivery.id] = now + _FRESH
        answers = answers[: len(mail)]
        if all(answer == OK for answer in answers):
            return
        for delivery, answer in zip(mail, answers, strict=True):
            if answer == SUPERSEDED:
                over = end(delivery, Reply(), state="discarded", cause="superseded", timeline=history("superseded"))
                self.settle(delivery, over)
            elif answer == OK:
                self.unmark(delivery)
            else:
                self._forget(delivery)
        raise Withdrawn

    def _mark(self, deliveries: Sequence[Claimed]) -> list[int]:
        self.progress_at = math.inf  # it is the ledger that is waited for
        try:
            return self._settler.write([mark(delivery) for delivery in deliveries])
        finally:
            self.progress_at = time.monotonic()

    def _pace(self) -> float:
        """Seconds a mail took so far, 0 as long as nobody knows."""
        return (self._ended_at - self._begun_at) / self._ended if self._ended else 0.0

    def _soon(self) -> list[Claimed]:
        """What follows within moments at the pace so far, and may be marked in the same round trip.

        Only kinds that are sent again when in doubt: should the worker die now, a person is asked about none of them.
        """
        pace = self._pace()
        with self._lock:
            following = list(islice(self._unstarted, min(_AHEAD, int(_MOMENT / pace)) if pace else 0))
        certain = takewhile(lambda mail: all(d.on_unknown == "resend" and not d.crashes for d in mail), following)
        return [delivery for mail in certain for delivery in mail]

    def was_handed_over(self, mail: Mail) -> bool:
        """Whether `sending` was, or may have been, written for this mail."""
        return mail[0].id in self._handed_over

    def react(self, entry: Entry) -> None:
        """Tell the ledger at once what this means for the account; the first to say so leaves one notice."""
        try:
            news = self._settler.write([entry])[0] == OK
        except LedgerUnavailable:
            self._put([entry])
            return
        if news and entry[0] == "park":
            log().error("account.parked", account=self.account, state=entry[2], cause=entry[4], reason=entry[5])
        elif news and entry[0] == "slow":
            log().warning("account.slowed", account=self.account)

    def unmark(self, delivery: Claimed) -> None:
        """A marked delivery of which nothing was sent waits again at once."""
        self.settle(delivery, _withdrawn(delivery))

    def settle(self, delivery: Claimed, *entries: Entry) -> None:
        """Owe the ledger this outcome; it is written within milliseconds, at the latest by `flush`."""
        self._put(entries)
        self._forget(delivery)
        self.progress_at = time.monotonic()
        if self._begun_at:  # what could not even be rendered says nothing about the pace
            self._ended_at = self.progress_at
            self._ended += 1

    def settle_now(self, delivery: Claimed, entry: Entry) -> int:
        """Write this outcome and return the ledger's answer; without an answer it is owed, and taken as OK."""
        self._forget(delivery)
        try:
            return self._settler.write([entry])[0]
        except LedgerUnavailable:
            self._put([entry])
            return OK

    def stop_behind(self, mail: Mail) -> None:
        """Give back all but this mail, which then takes its place before them."""
        for delivery in mail:
            self._forget(delivery)
        self.stop()

    def _forget(self, delivery: Claimed) -> None:
        with self._lock:
            self._under_way.pop(delivery.id, None)

    def _put(self, entries: Sequence[Entry]) -> None:
        self._tickets.append(self._settler.put(entries))

    def flush(self) -> None:
        """Write everything owed and free the slot. Raises LedgerUnavailable; calling again repeats what is missing."""
        self.progress_at = math.inf
        self.stop()
        with self._lock:
            left = tuple(self._under_way.values())
            self._under_way.clear()
        self._give_back(_mails(delivery for delivery in left if delivery.id not in self._unanswered))
        if doubtful := [delivery for delivery in reversed(left) if delivery.id in self._unanswered]:
            self._put([_withdrawn(delivery) for delivery in doubtful])
        if self._free is None:
            over = free(
                self.name, self.account, self.verdict, self.words, each=self._pace(), kept=self._kept(self.account)
            )  # fmt: skip
            self._free = self._settler.put([over])
            self._tickets.append(self._free)
        owed, self._tickets = self._tickets, []
        failed: LedgerUnavailable | None = None
        for ticket in owed:
            if ticket.error is not None:
                again = self._settler.put(ticket.entries)
                if ticket is self._free:
                    self._free = again
                ticket = again
            try:
                self._settler.wait(ticket)
            except LedgerUnavailable as error:
                failed = error
                self._tickets.append(ticket)
        if failed is not None:
            raise failed
        self._tell()

    def _tell(self) -> None:
        """One notice per change of the account, from the one conversation that changed it."""
        answer = self._free.answers[0] if self._free and self._free.answers else 0
        if answer == PARKED:
            log().error("account.parked", account=self.account, cause="unreachable", reason=self.words)
        elif answer == RECOVERED:
            log().info("account.ready", account=self.account)


def _withdrawn(delivery: Claimed) -> Entry:
    return withdraw(delivery, timeline=history("withdrawn", attempt=delivery.attempt))
