"""A worker that is asked to end: what it sends ends in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from tests.conftest import until
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.ledger.kit import data_change
from tests.workers.kit import House, smtp

MakeHouse = Callable[..., House]
TAKEN = "250 2.0.0 Ok: queued as 4XyZ12345"


class Slow:
    """A server that answers bodies once it is `opened`, each after its own time."""

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.0) -> None:
        self.seconds = seconds
        self.count = 0
        self.opened = threading.Event()

    def __call__(self, peer: Peer, line: str) -> str:
        self.count += 1
        seconds = self.seconds(self.count)
        self.opened.wait(30)
        time.sleep(seconds)
        return TAKEN


def test_every_send_may_take_the_whole_drain_time(make_house: MakeHouse) -> None:
    """Dramatiq alone took the time that earlier threads needed off each later one's share anew."""
    slow = Slow(lambda number: 3.0 if number == 7 else 0.8)
    with ScriptedServer(polite(DOT=slow)) as server:
        house = make_house(**{f"a{number}": smtp(server.port) for number in range(7)})
        worker = house.start_worker(drain_seconds=4, threads=8)
        ids = []
        for number in range(7):  # one after the other, so that threads take them in the order they are joined in
            ids += house.publish(data_change(), account=f"a{number}")
            until(lambda wanted=number + 1: slow.count == wanted, 10)
        worker.send_signal(signal.SIGTERM)
        slow.opened.set()
        assert worker.wait(8) == 0
        assert house.states(ids) == {"sent": 7}
