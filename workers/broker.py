"""The lanes as a Dramatiq broker: claims only what may be sent now, settles where Dramatiq retries through an outage.

Dramatiq contributes the worker runtime. Its delays, retries and results are not used: due times, attempts and outcomes
live in the ledger, and outcomes are written in `ack`, which Dramatiq repeats until Redis is back.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from dramatiq import Broker, Message, Middleware
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import iter_queue
from dramatiq.errors import BrokerError, ConnectionClosed
from dramatiq.worker import Worker

from postier.ledger.claims import Claims
from postier.ledger.entries import Entry, Handed, stall
from postier.ledger.wakes import Wakes
from postier.schemas.errors import LedgerUnavailable
from postier.settings.logs import log
from postier.workers.connections import Connections, Keeper, Nobody
from postier.workers.conversation import Conversation
from postier.workers.settler import Settler

QUEUE = "lanes"
ACTOR = "deliver"
_HOUSEKEEPING_SECONDS = 1.0
# Without progress for so long (seconds) a conversation's thread is replaced; and its account gets no other meanwhile.
_LATE_SECONDS = 0.2
_STALLED_SECONDS = 1.0
_STALLED_AGAIN = 4.0


class LaneMessage(MessageProxy):
    """A Dramatiq message that stands for one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(Message(queue_name=QUEUE, actor_name=ACTOR, args=(conversation.name,), kwargs={}, options={}))
        self.conversation = conversation


class _WakeUp(MessageProxy):
    """Makes an idle worker thread see that it should end."""

    def __init__(self) -> None:
        super().__init__(Message(queue_name=QUEUE, actor_name=ACTOR, args=(), kwargs={}, options={}))
        self.fail()


class LaneBroker(Broker):
    """A broker over the ledger for one worker process of `threads` busy threads.

    `size` is how many deliveries a conversation may hold, `seconds` how long it may go on before it gives the rest
    back. A conversation that stalls no longer counts as busy: `spare` more threads stand in for those, so that hanging
    servers cost the others nothing. `drain_seconds` is how long the end of the worker waits for conversations.
    `keeper` has the connections that stay open between conversations, `most_idle` of them at most.
    """

    def __init__(
        self, claims: Claims, *, threads: int, size: int, seconds: float, spare: int = 0, drain_seconds: float = 0.0,
        keeper: Keeper | None = None, most_idle: float = math.inf,
    ) -> None:  # fmt: skip
        super().__init__(middleware=[_DrainOnShutdown()])
        self.claims = claims
        self.settler = Settler(claims)
        self.connections = Connections(claims.worker, keeper or Nobody(), self._put, most=most_idle)
        self.threads = threads
        self.spare = spare
        self._stalled: set[str] = set()
        self.size = size
        self.seconds = seconds
        self.drain_seconds = drain_seconds
        self.draining = False
        self._wants_more = False  # whether the last claim was cut short by the threads there were
        self.wakes = Wakes(claims.store, claims.worker)
        self._lock = threading.Lock()
        self._conversations: dict[str, Conversation] = {}
        self._at_work = threading.Event()
        self._closed = threading.Event()
        self._helpers: list[threading.Thread] = []

    @property
    def helpers(self) -> tuple[threading.Thread, ...]:
        """The threads beside those that consume and send; all of them live until `close`."""
        return (*self._helpers, self.settler.flusher)

    def declare_queue(self, queue_name: str) -> None:
        """Announce the one queue; there is no delay queue, so Dramatiq starts no consumer for one."""
        if queue_name not in self.queues:
            self.queues[queue_name] = True
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Refuse: deliveries come from the ledger, never from Dramatiq messages."""
        raise BrokerError("postier's lanes take events through postier.client, not Dramatiq messages")

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> LaneConsumer:
        """The consumer of the lanes; one is alive at a time."""
        self._start_helpers()
        return LaneConsumer(self, timeout / 1000)

    def conversation(self, name: str) -> Conversation:
        """A conversation in progress by its name. Raises KeyError."""
        return self._conversations[name]

    @property
    def free_threads(self) -> int:
        """How many conversations may begin."""
        held = len(self._conversations)
        return min(self.threads - held + len(self._stalled), self.threads + self.spare - held)

    @property
    def _may_begin(self) -> bool:
        return self.free_threads > 0 and not self.draining

    @property
    def is_idle(self) -> bool:
        """Whether no conversation is in progress."""
        return not self._conversations

    def claim(self) -> tuple[float, list[Conversation]]:
        """Claim for the free threads. Raises LedgerUnavailable."""
        wanted = 0 if self.draining else max(0, self.free_threads)
        wait, handed = self.claims.claim(wanted, self.size)
        asked_for, handed = [item for item in handed if not item.name], [item for item in handed if item.name]
        self._wants_more = len(handed) >= wanted
        for item in asked_for:
            self.connections.give_up(item.account)
        conversations = [self._begin(item) for item in handed]
        if self.draining:  # since a moment: no thread may be left to take them
            for conversation in conversations:
                self.finish(conversation)
            return wait, []
        return wait, conversations

    def _put(self, entries: Iterable[Entry]) -> None:
        self.settler.put(list(entries))

    def _begin(self, handed: Handed) -> Conversation:
        conversation = Conversation(handed, self.settler, seconds=self.seconds, kept=self.connections.kept)
        with self._lock:
            self._conversations[conversation.name] = conversation
        self._at_work.set()
        if self.draining:
            conversation.stop()
        return conversation

    def finish(self, conversation: Conversation) -> None:
        """Settle what a conversation owes. Raises LedgerUnavailable, and may be called again then."""
        conversation.flush()
        with self._lock:
            self._conversations.pop(conversation.name, None)
            self._stalled.discard(conversation.name)
        if self.draining:
            self.connections.give_up(conversation.account)
        if self._wants_more:
            self.wakes.ring()

    def drain(self, worker: Worker) -> None:
        """Start nothing more, and give back now what is unstarted and whatever else others wait for."""
        self.draining = True
        self.wakes.ring()
        unstarted = [item.message for item in iter_queue(worker.work_queue)]
        with self._lock:
            conversations = list(self._conversations.values())
        for conversation in conversations:
            conversation.stop()
        for message in unstarted:
            if isinstance(message, LaneMessage):
                try:
                    self.finish(message.conversation)
                except LedgerUnavailable:
                    continue  # the leases run out by themselves
        self.connections.leave()
        try:
            self.settler.write(())  # a conversation that was late before now is told of before it no longer counts
            self._renew_all()
        except LedgerUnavailable as error:
            log().warning("ledger.unavailable", reason=str(error))
        log().info("worker.draining", worker=self.claims.worker, conversations=len(conversations))

    def idle(self, seconds: float) -> bool:
        """Wait for a change, a wake-up from the ledger or the time; True when there was a change."""
        changed = self.wakes.wait(seconds, listen=self._may_begin)
        if not self._may_begin:
            self.wakes.pass_on()
        return changed

    def close(self) -> None:
        """Stop the helper threads. Calling twice is safe."""
        self._closed.set()
        self._at_work.set()
        self._put(self.connections.all_closed())
        self.settler.close()

    def _start_helpers(self) -> None:
        if not self._helpers:
            for target in (self._renew, self._watch):
                thread = threading.Thread(target=target, name=f"postier-{target.__name__}", daemon=True)
                self._helpers.append(thread)
                thread.start()

    def _renew(self) -> None:
        """Keep the leases of what is really held, apart from the sending threads."""
        usual = pause = self.claims.lease / 3
        while not self._closed.wait(pause):
            try:
                self._renew_all()
                pause = usual
            except LedgerUnavailable as error:
                log().warning("ledger.unavailable", reason=str(error))
                pause = usual / 10  # waiting in vain took its part of the lease already
                continue
            self.connections.tidy()

    def _renew_all(self) -> None:
        with self._lock:
            conversations = list(self._conversations.values())
        held = [delivery for conversation in conversations for delivery in conversation.held()]
        slots = [(item.account, item.name) for item in conversations]
        if lost := self.claims.renew(slots, held, drains=self.draining):
            for conversation in conversations:
                conversation.lose(lost)

    def _watch(self) -> None:
        """Find conversations that are late: their threads are replaced. Those that stall keep others of their account
        away."""
        told, told_of = -math.inf, set[str]()
        while not self._closed.wait(_LATE_SECONDS / 2):
            now = time.monotonic()
            with self._lock:
                if not self._conversations:
                    self._at_work.clear()
                waits = {item.name: (now - item.progress_at, item.account) for item in self._conversations.values()}
                late = {name for name, (seconds, _) in waits.items() if seconds > _LATE_SECONDS}
                changed = late != self._stalled
                self._stalled = late
            stalled = {account for seconds, account in waits.values() if seconds > _STALLED_SECONDS}
            if stalled and not self.draining and (stalled != told_of or now > told + _STALLED_AGAIN):
                told = now
                self.settler.put([stall(account) for account in sorted(stalled)])
            told_of = stalled
            if changed:
                self.wakes.ring()
            if not self._at_work.is_set():
                self._at_work.wait()


class LaneConsumer(Consumer):
    """Yields conversations for free threads, and settles them when Dramatiq says they are over."""

    def __init__(self, broker: LaneBroker, timeout: float) -> None:
        self._broker = broker
        self._timeout = timeout
        self._ready: deque[Conversation] = deque()
        self._looked = self._next_look = 0.0

    def __next__(self) -> MessageProxy | None:
        if self._ready:
            return LaneMessage(self._ready.popleft())
        broker, now = self._broker, time.monotonic()
        pause = self._next_look - now
        if broker.draining or (broker.free_threads <= 0 and now - self._looked < _HOUSEKEEPING_SECONDS):
            pause = _HOUSEKEEPING_SECONDS
        if pause > 0 and not broker.idle(min(pause, self._timeout)):
            return None
        if broker.draining:
            return None
        try:
            wait, conversations = broker.claim()
        except LedgerUnavailable as error:
            raise ConnectionClosed(error) from None
        self._looked = time.monotonic()
        # What a claim leaves behind is not due before `wait`, unless the threads ran out: then a free one looks again.
        self._next_look = self._looked + wait
        self._ready.extend(conversations)
        return LaneMessage(self._ready.popleft()) if self._ready else None

    def ack(self, message: MessageProxy) -> None:
        """Write the outcomes. Dramatiq repeats this until Redis takes them."""
        if isinstance(message, _WakeUp):
            return
        assert isinstance(message, LaneMessage)
        try:
            self._broker.finish(message.conversation)
        except LedgerUnavailable as error:
            raise ConnectionClosed(error) from None

    nack = ack

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give unstarted conversations back."""
        for message in messages:
            self.ack(message)

    def close(self) -> None:
        """Give back what was claimed but not handed out, and stop listening."""
        while self._ready:
            try:
                self._broker.finish(self._ready.popleft())
            except LedgerUnavailable:
                continue  # the leases run out by themselves
        self._broker.wakes.close()


class _DrainOnShutdown(Middleware):
    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if isinstance(broker, LaneBroker):
            until = time.monotonic() + broker.drain_seconds
            try:
                broker.drain(worker)
            finally:  # Dramatiq goes on behind an error, and what is under way may end all the same
                self._let_end(worker, until)

    @staticmethod
    def _let_end(worker: Worker, until: float) -> None:
        for thread in worker.workers:
            thread.stop()
        for consumer in worker.consumers.values():
            for _ in worker.workers:
                consumer.handle_message(_WakeUp())
        # Dramatiq 2.2.1 waits too briefly: it takes the time since it began off each later thread's share anew.
        for thread in worker.workers:
            thread.join(max(0.0, until - time.monotonic()))
