"""Real worker processes at a server that counts logins: wrong passwords, refused senders, spent quotas."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, until
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.governor.kit import field
from tests.ledger.kit import TENANTS, data_change, reset_link, somebody
from tests.workers.kit import House, copies, smtp, toml

MakeHouse = Callable[..., House]
AUTH = ("PIPELINING", "ENHANCEDSTATUSCODES", "AUTH PLAIN")


class Door:
    """A login that knows one password and remembers every try."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.refused: list[float] = []
        self.let_in = 0
        self._lock = threading.Lock()

    def __call__(self, peer: Peer, line: str) -> str:
        given = base64.b64decode(line.split()[2]).decode().rpartition("\0")[2]
        time.sleep(0.05)  # long enough for others to try meanwhile
        with self._lock:
            if given == self.password:
                self.let_in += 1
                return "235 2.7.0 welcome"
            self.refused.append(time.monotonic())
            return "535 5.7.8 Username and Password not accepted"


def login(port: int, secret: Path, **more: Any) -> dict[str, Any]:
    options = {"auth": "plain", "username": "post", "password": f"file:{secret}", "allow_plain_login": True}
    return smtp(port, options=options, **more)


def replace(secret: Path, text: str) -> None:
    """As whoever mounts secrets does: nobody ever reads a file that is being written."""
    fresh = secret.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(secret)


def notices(house: House, event: str) -> list[dict[str, Any]]:
    """Log lines of both workers that say this event; the first is waited for, as it stands behind what it tells of."""
    until(lambda: f'"{event}"' in house.log(), what=f"the notice {event}")
    lines = [line for line in house.log().splitlines() if f'"{event}"' in line]
    return [json.loads(line) for line in lines]


def state(house: House, account: str = "main") -> str:
    value = house.store.redis.hget(house.store.key(f"account:{account}"), "state")
    return value.decode() if value else ""


def test_a_wrong_password_is_tried_twice_at_most_and_the_mail_leaves_in_order_once_it_is_right(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    door = Door("right")
    with ScriptedServer(polite(extensions=AUTH, AUTH=door)) as server:
        house = make_house(main=login(server.port, secret, limits={"max_connections": 8}))
        for _ in range(2):
            house.start_worker()
        ids = house.publish(*(data_change() for _ in range(60)))
        until(lambda: state(house) == "parked", what="the parking")
        until(lambda: house.states(ids) == {"waiting": 60}, what="the return of all mail")
        assert 1 <= len(door.refused) <= 2
        assert {house.status(identity).attempt for identity in ids} == {0}
        assert house.queries.counts()["waiting"] == 60
        for _ in range(4):  # a person tries again and again; the third try of the hour is the last
            tried = len(door.refused)
            house.store.run("manage", ("resume", "main", "ops"))
            until(lambda: state(house) == "parked")
            assert len(door.refused) <= max(3, tried)
        assert len(door.refused) <= 3
        assert float(field(house, "main", "until")) / 1e6 > time.time() + 600
        replace(secret, "right\n")
        assert house.wait_for_the_end(ids) == {"sent": 60}  # the parking alone would last ten minutes
        assert copies(server) == dict.fromkeys(ids, 1)
        assert len(door.refused) <= 3
        assert "right" not in house.log()
        ready = notices(house, "account.ready")
        assert len(ready) == 1, ready


def test_a_password_rotated_while_mail_flows_costs_two_tries_one_notice_and_no_mail(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("old")
    door = Door("old")
    taken = threading.Semaphore(0)

    def slowly(peer: Peer, line: str) -> str:
        taken.release()
        time.sleep(0.02)
        return "250 2.0.0 Ok"

    script = polite(extensions=AUTH, AUTH=door, DOT=slowly)
    with ScriptedServer(script) as server:
        account = login(server.port, secret, limits={"max_connections": 8, "per_second": 80})
        account["options"] |= {"max_mails_per_session": 5}  # so that new logins are always wanted
        house = make_house(main=account)
        for _ in range(2):
            house.start_worker()
        ids = house.publish(*(reset_link() for _ in range(160)))
        for _ in range(60):
            assert taken.acquire(timeout=PATIENCE)
        door.password = "new"
        until(lambda: state(house) == "parked", what="the parking")
        until(lambda: set(house.states(ids)) <= {"waiting", "sent"}, what="that nobody holds mail to try with")
        assert 1 <= len(door.refused) <= 3
        assert state(house) == "parked"
        replace(secret, "new")
        assert house.wait_for_the_end(ids) == {"sent": 160}
        assert copies(server) == dict.fromkeys(ids, 1)
        assert 1 <= len(door.refused) <= 3
        assert len(notices(house, "account.parked")) == 1
        assert field(house, "main", "factor") == ""


@pytest.mark.parametrize(
    ("verb", "reply", "cause"),
    [
        ("DOT", "550 5.4.5 Daily user sending quota exceeded", "quota_exhausted"),
        ("DOT", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", "quota_exhausted"),
        ("DOT", "554 5.2.2 mailbox full; STOREDRV.Submission", "sender_refused"),
        ("MAIL", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "sender_refused"),
        ("MAIL", "530 5.7.57 Client not authenticated to send mail", "authentication_failed"),
    ],
)
def test_a_refusal_that_means_the_account_parks_it_and_leaves_its_mail_and_its_neighbour_alone(
    make_house: MakeHouse, verb: str, reply: str, cause: str
) -> None:
    with ScriptedServer(polite(**{verb: reply})) as angry, ScriptedServer(polite()) as kind:
        house = make_house(main=smtp(angry.port), other=smtp(kind.port))
        house.start_worker()
        ids = house.publish(*(data_change() for _ in range(5)), account="main")
        fine = house.publish(*(data_change() for _ in range(5)), account="other")
        until(lambda: state(house) == "parked", what="the parking")
        assert house.wait_for_the_end(fine) == {"sent": 5}
        until(lambda: house.states(ids) == {"waiting": 5}, what="the return of all mail")
        assert field(house, "main", "reason") == cause
        assert {house.status(identity).attempt for identity in ids} == {0}
        assert len(notices(house, "account.parked")) == 1


def test_one_mail_that_alone_is_refused_for_the_sender_does_not_stop_the_others_for_ever(
    make_house: MakeHouse,
) -> None:
    def picky(peer: Peer, line: str) -> str:
        return "550 5.7.1 Sender not authorized to send to this destination" if "person-odd" in line else "250 Ok"

    with ScriptedServer(polite(RCPT=picky)) as server:
        house = make_house(main=smtp(server.port))
        house.start_worker()
        odd = somebody().model_copy(update={"address": "person-odd@example.org"})
        (poison,) = house.publish(data_change(odd))
        until(lambda: state(house) == "parked", what="the parking")
        fine = house.publish(*(data_change() for _ in range(5)))
        house.store.run("manage", ("resume", "main", "ops"))  # as the end of the parking would
        until(lambda: house.states(fine)["sent"] >= 1 or state(house) == "parked")
        until(lambda: _resumed(house, fine), what="the others' mail")
        assert house.wait_for(poison, "failed").cause == "sender_refused"


def _resumed(house: House, ids: list[str]) -> bool:
    if state(house) == "parked":
        house.store.run("manage", ("resume", "main", "ops"))
    return house.states(ids) == {"sent": 5}


def test_421_and_429_like_replies_slow_the_account_and_spend_no_attempt(make_house: MakeHouse) -> None:
    replies = iter(
        ["421 4.7.0 Try again later", "451 4.7.500 Server busy, slow down", "432 4.3.2 Too many connections"]
    )

    def tired(peer: Peer, line: str) -> str:
        return next(replies, "250 2.1.0 Ok")

    with ScriptedServer(polite(MAIL=tired)) as server:
        house = make_house(main=smtp(server.port))
        house.start_worker()
        (identity,) = house.publish(reset_link())
        until(lambda: field(house, "main", "factor"), what="the slowing")
        for _ in range(3):
            until(lambda: house.status(identity).state in ("waiting", "sent"))
            house.bring_forward(identity)
            house.store.redis.hdel(house.store.key("account:main"), "hold")
            house.store.redis.zadd(house.store.key("due:u"), {"main": 1}, xx=True)
        until(lambda: house.status(identity).state == "sent" or house.bring_forward(identity))
        assert house.status(identity).attempt == 1
        assert state(house) == "ready"
        assert len(notices(house, "account.slowed")) == 1


def test_a_worker_that_lacks_an_account_does_not_park_it_for_long_for_those_that_have_it(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port), desk=smtp(server.port))
        behind = tmp_path / "behind.toml"
        behind.write_text(
            toml({"default_account": "main", "accounts": {"main": smtp(server.port)}, "tenants": TENANTS})
        )
        stranger = house.start_worker(accounts_file=behind, data_dir=tmp_path / "stranger")
        ids = house.publish(*(reset_link() for _ in range(3)), account="desk")
        until(lambda: state(house, "desk") == "parked", what="the parking")
        assert 0 < float(house.queries.accounts()["desk"]["until"]) - time.time() <= 10
        stranger.terminate()
        assert stranger.wait(PATIENCE) == 0
        house.start_worker()  # it has the account, which may be what is waited for
        assert house.wait_for_the_end(ids, PATIENCE) == {"sent": 3}
        assert {house.status(one).attempt for one in ids} == {1}
