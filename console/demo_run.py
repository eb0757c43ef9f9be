"""The demo from start to end: a ledger, a mail server, workers, sample events; nothing of it outlives the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from postier.client.postier import Postier
from postier.console.demo_catcher import Catcher
from postier.console.demo_certificate import make_certificate
from postier.console.demo_folder import ACCOUNTS, Folder
from postier.console.demo_stories import BUSY_ONCE, TENANT, Story, samples, stories
from postier.console.demo_table import Lines, Live, View
from postier.console.ledger_access import Ledger, ledger
from postier.console.publish_lines import batches, publish_batch
from postier.ledger.accounts import configure
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.publish import Accepted
from postier.schemas.edge import wrap
from postier.schemas.errors import ConfigurationError
from postier.settings.config import Settings, load_settings
from postier.settings.logs import configure_logging
from postier.workers.preflight import check_redis
from postier.workers.supervisor import Supervisor

PROCESSES, THREADS, DRAIN_SECONDS = 2, 4, 5.0
_DEADLINE = 60.0  # seconds for all stories
_LOOK = 0.2
_OUTSIDE_NAMESPACE = "postier-demo"

# Ends the server when the demo was killed: its end of the pipe closes without a word.
_GUARD = "import os,signal,sys\nif not os.read(0,1): os.kill(int(sys.argv[1]),signal.SIGTERM)"


class Demo:
    """Everything that runs while the demo does. `with` it; the ledger and the stories are ready then."""

    def __init__(self, folder: Folder, stopping: threading.Event) -> None:
        self.folder = folder
        self.stopping = stopping
        self.stories: list[Story] = []
        self.outside = bool(os.environ.get("POSTIER_REDIS_URL"))
        self._stack = ExitStack()

    def __enter__(self) -> Demo:
        with ExitStack() as stack:
            stack.enter_context(self.folder.locked())
            configure_logging("error", "console")
            url, namespace = self._redis(stack)
            authority, certificate = make_certificate(self.folder.tls)
            self.catcher = Catcher(
                passwords=self.folder.server_passwords, mail=self.folder.mail, certificate=certificate,
                busy_once=(BUSY_ONCE,),
            ).start()  # fmt: skip
            stack.callback(self.catcher.stop)
            self.folder.write_accounts(self.catcher.port, authority)
            self.environment = self.folder.write_environment(url, namespace)
            self.settings = _settings(self.environment)
            self.ledger: Ledger = stack.enter_context(ledger(self.settings))
            check_redis(self.ledger.store)
            self._begin_afresh()
            self.supervisor = self._workers(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _redis(self, stack: ExitStack) -> tuple[str, str]:
        if self.outside:
            return os.environ["POSTIER_REDIS_URL"], os.environ.get("POSTIER_NAMESPACE", _OUTSIDE_NAMESPACE)
        server = stack.enter_context(EmbeddedServer(self.folder.redis))
        assert server.pid is not None
        stack.enter_context(_guarded(server.pid))
        return server.url, "postier"

    def _begin_afresh(self) -> None:
        """Accounts as the stories need them, whatever an earlier demo or a person left."""
        configure(self.ledger.store, self.settings.registry())
        for name in ACCOUNTS:
            self.ledger.manage().resume(name)

    def _workers(self, stack: ExitStack) -> Supervisor:
        log = stack.enter_context(self.folder.log.open("ab"))
        own = {"POSTIER_THREADS": str(THREADS), "POSTIER_DRAIN_SECONDS": str(DRAIN_SECONDS)}
        supervisor = Supervisor(
            processes=PROCESSES, drain_seconds=DRAIN_SECONDS, environment={**self.environment, **own}, output=log
        )
        stack.callback(supervisor.stop)
        supervisor.start()
        return supervisor

    def publish(self) -> None:
        """Publish the stories: the first half from Python, the others as JSON Lines; and write a sample to publish."""
        self.stories = stories()
        half = len(self.stories) // 2
        with Postier(settings=self.settings) as postier:
            for story in self.stories[:half]:
                story.deliveries = postier.publish(story.event, tenant=TENANT, account=story.account).deliveries
            lines = (
                wrap(story.event, tenant=TENANT, account=story.account).model_dump_json(exclude_none=True)
                for story in self.stories[half:]
            )
            self.folder.events.write_text("\n".join(lines) + "\n", encoding="utf-8")
            with self.folder.events.open("rb") as file:
                answers = [
                    answer
                    for batch in batches(file.fileno())
                    for answer in publish_batch(postier, batch, tenant=None, wait=10)
                ]
            for story, answer in zip(self.stories[half:], answers, strict=True):
                if not isinstance(answer, Accepted):
                    raise answer
                story.deliveries = answer.deliveries
        self._write_sample()

    def _write_sample(self) -> None:
        at = datetime.now(UTC).replace(microsecond=0)
        lines = [
            wrap(event, tenant=TENANT, account=account).model_dump_json(
                exclude_none=True, exclude_defaults=True, exclude={"id", "idempotency_key", "occurred_at"}
            )
            for event, account in samples(at)
        ]
        self.folder.sample.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def tell(self, view: View) -> bool:
        """Show the stories until each ended, time is up or someone stopped. True when all ended as told."""
        deadline = time.monotonic() + _DEADLINE
        while True:
            accounts = self._look()
            view.show(self.stories, accounts)
            told = [story.told(accounts) for story in self.stories]
            if all(end is not None for end in told) or self.stopping.is_set() or time.monotonic() > deadline:
                return all(told)
            self.stopping.wait(_LOOK)
            self.keep_up()

    def keep_up(self) -> None:
        """Start dead workers again. Raises ConfigurationError when they find their set-up wrong."""
        self.supervisor.watch()
        if self.supervisor.wrong_set_up:
            raise ConfigurationError(f"the workers do not start: see {self.folder.log}")

    def _look(self) -> Mapping[str, Mapping[str, Any]]:
        for story in self.stories:
            found = (self.ledger.queries.status(delivery) for delivery in story.deliveries)
            story.statuses = tuple(status for status in found if status is not None)
        return self.ledger.queries.accounts()

    def accounts(self) -> Mapping[str, Mapping[str, Any]]:
        """How the accounts stand."""
        return self.ledger.queries.accounts()


def _settings(environment: Mapping[str, str]) -> Settings:
    prefix = "POSTIER_"
    known = {name.removeprefix(prefix).lower(): value for name, value in environment.items()}
    return load_settings(**{name: value for name, value in known.items() if name in Settings.model_fields})


@contextmanager
def _guarded(pid: int) -> Iterator[None]:
    """End process `pid` even when this one is killed outright."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD, str(pid)], stdin=subprocess.PIPE, process_group=0
    ) as guard:
        assert guard.stdin is not None
        try:
            yield
        finally:
            guard.stdin.write(b".")
            guard.stdin.close()


@contextmanager
def _until_signalled() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closing terminal set."""
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if not _ignored(number)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN  # nohup


@contextmanager
def running(root: Path) -> Iterator[Demo]:
    """A running demo in a folder, its sample events not yet published. Raises ConfigurationError, LedgerUnavailable."""
    with _until_signalled() as stopping, Demo(Folder(root), stopping) as demo:
        yield demo


def view_for(*, terminal: bool) -> View:
    """The live table or plain lines."""
    return Live() if terminal else Lines()
