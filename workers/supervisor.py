"""Worker processes that stay: one that dies is started again, none outlives its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO

from postier.ledger.store import Store
from postier.schemas.errors import LedgerUnavailable
from postier.settings.config import Settings, unknown_variables
from postier.settings.logs import configure_logging, log
from postier.workers.child import GRACE, WRONG_SET_UP
from postier.workers.preflight import check_egress, check_redis

COMMAND = (sys.executable, "-P", "-m", "postier.workers.child")
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0
_LIVED_LONG = 30.0  # after which a death counts as the first again
_LOOK = 0.1


@dataclass(slots=True)
class _Place:
    """One worker process and, when it died, how often in a row and when the next one starts."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    again_at: float = 0.0


class Supervisor:
    """Keeps `processes` children alive. `start`, then `watch` now and then, then `stop`; not for several threads.

    `environment` is added to this process's; `output` takes the children's standard error.
    """

    def __init__(
        self,
        *,
        processes: int,
        drain_seconds: float,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._places = [_Place(number) for number in range(1, processes + 1)]
        self._patience = drain_seconds + GRACE
        self._environment = {**os.environ, **(environment or {})}
        self._output = output
        self._command = list(command)
        self._hurry = threading.Event()
        self.wrong_set_up = False

    @property
    def pids(self) -> list[int]:
        """The living children."""
        return [place.process.pid for place in self._places if place.process and place.process.poll() is None]

    def start(self) -> None:
        """Start every child."""
        for place in self._places:
            self._launch(place)

    def watch(self) -> None:
        """Start again what died, each after its own growing pause. A child that finds its set-up wrong ends all."""
        now = time.monotonic()
        for place in self._places:
            if place.process is not None and place.process.poll() is not None:
                self._bury(place, place.process.returncode, now)
            if place.process is None and now >= place.again_at and not self.wrong_set_up:
                self._launch(place)

    def hurry(self) -> None:
        """Make a `stop` that is under way kill what still drains. Safe in a signal handler."""
        self._hurry.set()

    def stop(self) -> bool:
        """Ask the children to drain, wait for the drain time and 5 s, then kill. True when all ended in order."""
        living = [place.process for place in self._places if place.process is not None]
        for process in living:
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + self._patience
        while any(process.poll() is None for process in living):
            if self._hurry.is_set() or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        killed = [process for process in living if process.poll() is None]
        for process in killed:
            _send(process, signal.SIGKILL)
        for process in living:
            process.wait()
            _close(process)
        for place in self._places:
            place.process = None
        return not killed

    def _launch(self, place: _Place) -> None:
        # A group of its own: Ctrl-C at the terminal reaches the supervisor alone, which asks once.
        place.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL if self._output else None,
            stderr=self._output, env=self._environment, process_group=0,
        )  # fmt: skip
        place.started = time.monotonic()
        log().debug("worker.launched", place=place.number, pid=place.process.pid)

    def _bury(self, place: _Place, code: int, now: float) -> None:
        process, first = place.process, place.deaths == 0
        assert process is not None
        place.process = None
        _close(process)
        lived = now - place.started
        if code == WRONG_SET_UP and first:
            self.wrong_set_up = True
            return
        place.deaths = 1 if lived > _LIVED_LONG else place.deaths + 1
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(place.deaths - 1, 10))
        place.again_at = now + wait
        log().error(
            "worker.died", place=place.number, pid=process.pid, code=code, lived=round(lived, 1), restart_in=wait
        )


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def supervise(settings: Settings) -> int:
    """Run workers until SIGTERM or SIGINT, then drain; a second signal ends them at once. Returns the exit code.

    Raises ConfigurationError before anything starts when the set-up or the Redis server is not fit.
    """
    configure_logging(settings.log_level, settings.log_format)
    _check(settings)
    supervisor = Supervisor(
        processes=settings.processes, drain_seconds=settings.drain_seconds, environment=_environment(settings)
    )
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        if stopping.is_set():
            supervisor.hurry()
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        supervisor.start()
        log().info("supervisor.started", processes=settings.processes, threads=settings.threads)
        while not stopping.wait(_LOOK) and not supervisor.wrong_set_up:
            supervisor.watch()
        in_order = supervisor.stop()
        log().info("supervisor.stopped", in_order=in_order)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if supervisor.wrong_set_up:
        return WRONG_SET_UP
    return 0 if in_order else 1


def _check(settings: Settings) -> None:
    """What is wrong now would be wrong in every child; a Redis that is away is not: children wait for it."""
    settings.sealer()
    settings.registry()
    check_egress(settings)
    for sentence in unknown_variables(settings):
        log().warning("settings.unknown", reason=sentence)
    store = Store(settings.redis_url, namespace=settings.namespace, timeout=settings.redis_timeout)
    try:
        check_redis(store)
    except LedgerUnavailable as error:
        log().warning("ledger.unavailable", reason=str(error))
    finally:
        store.close()


def _environment(settings: Settings) -> dict[str, str]:
    """What the command line changed, for the children."""
    return {
        "POSTIER_PROCESSES": str(settings.processes),
        "POSTIER_THREADS": str(settings.threads),
        "POSTIER_LOG_FORMAT": settings.log_format,
    }
