"""No worker process lives on while nobody in it takes mail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from postier.ledger.embedded import EmbeddedServer
from postier.schemas.edge import wrap
from tests.conftest import PATIENCE, until
from tests.drivers.kit import ScriptedServer, polite
from tests.ledger.kit import reset_link
from tests.workers.kit import House, copies, smtp

MakeHouse = Callable[..., House]
# The first call of a method raises what nobody foresaw. A consumer's thread must be ended while it lets go: Dramatiq
# goes on behind anything else.
ENDED = {
    "consumer": "postier.workers.broker.LaneConsumer.close",
    "renewal": "postier.workers.broker.LaneBroker._renew_all",
}
FAILS_ONCE = """
from pydoc import locate
from postier.schemas.errors import LedgerUnavailable

def fails_once(path, error):
    owner, name = path.rsplit(".", 1)
    method, failed = getattr(locate(owner), name), []
    def call(*given, **more):
        if not failed:
            failed.append(True)
            raise error
        return method(*given, **more)
    setattr(locate(owner), name, call)

fails_once("postier.ledger.claims.Claims.claim", LedgerUnavailable("away"))
fails_once("{path}", RuntimeError("nobody foresaw this"))
"""


def test_a_server_that_refuses_writes_and_takes_them_again_gets_its_mail_from_the_same_worker(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    with EmbeddedServer(tmp_path / "own", fsync="no") as redis, ScriptedServer(polite()) as server:
        house = make_house(redis.url, main=smtp(server.port))
        worker = house.start_worker()
        (first,) = house.publish(reset_link())
        house.wait_for(first, "sent")
        house.store.redis.config_set("min-replicas-to-write", 1)
        # The second claim that is refused follows a pause that ended by the clock, while the ledger was listened to.
        until(lambda: house.log().count("Consumer encountered a connection error") >= 2, what="refused claims")
        house.store.redis.config_set("min-replicas-to-write", 0)
        ids = house.publish(*(reset_link() for _ in range(5)))
        assert house.wait_for_the_end(ids) == {"sent": 5}
        assert copies(server) == dict.fromkeys((first, *ids), 1)
        assert worker.poll() is None


@pytest.mark.parametrize("thread", ENDED)
def test_a_worker_that_lost_a_thread_says_so_and_ends_for_its_supervisor_to_replace(
    thread: str, make_house: MakeHouse
) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port))
        worker = house.start_worker(before=FAILS_ONCE.format(path=ENDED[thread]))
        assert worker.wait(PATIENCE) == 1
        assert house.log().index("worker.broken") < house.log().index("worker.stopped"), "it ended in order"


def test_an_error_that_nobody_foresaw_in_the_inbox_is_told_and_the_inbox_goes_on(make_house: MakeHouse) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port))
        worker = house.start_worker(before=FAILS_ONCE.format(path="postier.ledger.inbox.Inbox.take"))
        envelope = wrap(reset_link(), tenant="school").model_dump_json()
        house.store.redis.rpush(house.store.key("inbox"), envelope)
        until(lambda: server.bodies, what="the mail from the inbox")
        assert "inbox.failed" in house.log()
        assert worker.poll() is None
