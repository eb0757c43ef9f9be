"""One worker process: its lanes, its threads, its end."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import resource
import signal
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from types import FrameType

import dramatiq
from dramatiq.worker import Worker

from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.dataset import Dataset
from postier.ledger.inbox import Inbox
from postier.ledger.logins import LoginTurns
from postier.ledger.merged import RegistrySource
from postier.ledger.publish import Publisher
from postier.ledger.store import Store, load_scripts
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.envelope import new_event_id
from postier.schemas.errors import LedgerUnavailable
from postier.settings.config import Settings, load_settings
from postier.settings.logs import configure_logging, log
from postier.settings.sealed_options import open_options
from postier.workers.broker import ACTOR, QUEUE, LaneBroker
from postier.workers.deliver import Deliverer
from postier.workers.intake import Intake
from postier.workers.preflight import check_redis
from postier.workers.receipts import ReceiptFile, replay_receipts
from postier.workers.route import Roster
from postier.workers.vigil import Vigil

_RECONNECT_SECONDS = 1.0
_REFRESH_SECONDS = 3.0
_TELL_SECONDS = 60.0
_SAME_SIGNAL_SECONDS = 1.0
# Threads that stand in for those whose server hangs; idle ones are woken when they should end (ms: or miss it).
_SPARE = 2
_LOOK_MS = 10_000
# More than a consumer pauses while it drains.
_CONSUMER_MS = 1_500
# As many as a worker asks for: each account's connections stay open for a while after a mail.
_DESCRIPTORS = 65_536
_GC_THRESHOLDS = (20_000, 20, 50)
_M_ARENA_MAX = -8  # glibc's malloc.h


class WorkerProcess:
    """Everything one process needs to deliver; `start` it, `stop` it. Raises ConfigurationError when set up wrongly."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._told_at = time.monotonic()
        self._told_credentials: dict[str, str] = {}
        self.name = f"{socket.gethostname()[:20]}-{os.getpid()}-{new_event_id()[-6:]}"
        load_scripts()
        self.store = Store(settings.redis_url, namespace=settings.namespace, timeout=settings.redis_timeout)
        self.claims = Claims(
            self.store, self.name, lease=settings.lease_seconds, crash_limit=settings.crash_limit,
            keep_sent=settings.keep_sent_seconds, threads=settings.threads,
        )  # fmt: skip
        self.receipts_folder = settings.data_dir / "receipts"
        self.receipts = ReceiptFile(self.receipts_folder, self.name)
        self.dataset = Dataset(self.store, settings.data_dir)
        self.store.guard = self.dataset.check
        self.vigil = Vigil(self.store, self.dataset, self.receipts, self.claims.settle, worker=self.name)
        sealer = settings.sealer()
        self.source = RegistrySource(settings.registry, self.store)
        self.roster = Roster(
            self.source, key=sealer.fingerprint_key, logins=partial(LoginTurns, self.store),
            tokens=lambda account: SealedTokenStore(self.store, sealer, owner=account),
            open_options=partial(open_options, sealer), confirmed=lambda: self.source.confirmed,
            trusted=lambda name: name in self.source.files.accounts, egress_allow=settings.egress(),
        )  # fmt: skip
        publisher = Publisher(self.store, sealer, keep_keys=settings.keep_keys_seconds)
        self.intake = Intake(Inbox(self.store, sealer, publisher), lambda: self.roster.registry)
        self.broker = LaneBroker(
            self.claims, threads=settings.threads, size=settings.conversation_size,
            seconds=settings.conversation_seconds, spare=settings.threads * _SPARE,
            drain_seconds=settings.drain_seconds, keeper=self.roster,
            most_idle=most_descriptors() // 2,
        )  # fmt: skip
        deliverer = Deliverer(self.roster, sealer, self.receipts)
        broker = self.broker

        def deliver(conversation: str) -> None:
            deliverer.deliver(broker.conversation(conversation))

        dramatiq.set_broker(broker)
        dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(deliver)
        self.worker = Worker(broker, worker_threads=settings.threads * (1 + _SPARE), worker_timeout=_LOOK_MS)

    def prepare(self, stopping: threading.Event) -> None:
        """Tell the ledger the accounts and what died before us left behind; waits for Redis as long as it takes."""
        while not stopping.is_set():
            try:
                check_redis(self.store)
                self.dataset.beat()
                self.store.offer("publish", "whole")
                self.roster.refresh()
                self._tell_accounts()
                self.claims.renew((), ())
                replay_receipts(self.receipts_folder, self.claims.settle)
                return
            except LedgerUnavailable as error:
                log().warning("ledger.unavailable", reason=str(error))
                stopping.wait(_RECONNECT_SECONDS)

    def _tell_accounts(self) -> None:
        if not self.source.known:
            raise LedgerUnavailable("the stored accounts could not be read yet")
        credentials = self.roster.credentials
        configure(
            self.store, self.roster.registry, credentials=credentials, told=self._told_credentials,
            files=self.source.files,
        )  # fmt: skip
        self._told_credentials = credentials

    def refresh(self) -> None:
        """Pick up changed accounts and secrets, and tell the ledger; also once a minute, for quotas start anew."""
        now = time.monotonic()
        if not self.roster.refresh() and now - self._told_at < _TELL_SECONDS:
            return
        try:
            self._tell_accounts()
            self._told_at = now
        except LedgerUnavailable as error:
            self._told_at = -math.inf  # what changed is told as soon as the ledger is back
            log().warning("ledger.unavailable", reason=str(error))

    @property
    def is_whole(self) -> bool:
        """Whether every thread that should be at work is: an error nobody foresaw may have ended one."""
        threads = (*self.worker.consumers.values(), *self.worker.workers, *self.broker.helpers, self.intake)
        return all(thread.is_alive() for thread in threads)

    def start(self) -> None:
        """Start claiming."""
        self.roster.warm_up()
        # What exists now stays: collecting it again and again took a tenth of a mail's time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self.worker.start()
        self.intake.start()
        log().info("worker.started", worker=self.name, threads=self.settings.threads)

    def stop(self) -> None:
        """Give back what is unstarted, let what is under way end within the drain time, then let go."""
        self.intake.stop()
        self.worker.stop(timeout=_CONSUMER_MS)  # the broker has waited for the sends by then
        self.roster.close()
        self.broker.close()
        if self.broker.is_idle:
            self.receipts.close()
        self.store.close()
        log().info("worker.stopped", worker=self.name)


def most_descriptors() -> int:
    """How many descriptors this process may have; the limit is raised as far as nobody needs to be asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _DESCRIPTORS) if hard != resource.RLIM_INFINITY else _DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def share_memory_among_threads() -> None:
    """Let all threads allocate from one arena: glibc gives each its own, which fills over hours and is never shared.

    Elsewhere than on glibc it does nothing. To be called before threads start; calling twice is safe.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def run(settings: Settings | None = None) -> int:
    """Work until SIGTERM or SIGINT; a second signal ends at once. Returns the exit code."""
    settings = settings or load_settings()
    configure_logging(settings.log_level, settings.log_format)
    stopping = threading.Event()

    asked_at = 0.0

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal asked_at
        # A supervisor and its service manager may both pass on the one signal somebody sent.
        if stopping.is_set() and time.monotonic() - asked_at > _SAME_SIGNAL_SECONDS:
            os._exit(1)
        if not stopping.is_set():
            asked_at = time.monotonic()
            stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    share_memory_among_threads()
    process = WorkerProcess(settings)
    process.prepare(stopping)
    code = 0
    if not stopping.is_set():
        process.start()
        while not stopping.wait(_REFRESH_SECONDS):
            if not process.is_whole:
                log().critical("worker.broken", means="one of its threads ended; this process makes room for a new one")
                code = 1
                break
            process.vigil.look()
            process.refresh()
            process.receipts.trim(settled=lambda: process.broker.is_idle)
        process.stop()
    return code


if __name__ == "__main__":
    # A hanging conversation must not keep the process: its lease tells what happened.
    code = run()
    os._exit(code)
