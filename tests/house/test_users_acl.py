"""The access list in `deploy/`: on a real server every role does its work with it, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from postier.client import Postier
from postier.ledger.embedded import find_server, free_port
from postier.schemas.errors import LedgerUnavailable
from postier.settings.config import Settings
from tests.conftest import until
from tests.drivers.kit import ScriptedServer, polite
from tests.ledger.kit import contact_form, data_change, reset_link
from tests.workers.kit import House, smtp

ROOT = Path(__file__).parents[2]
USERS = ROOT / "deploy" / "users.acl"
NAMESPACE = "postier"
FORBIDDEN_TO_ALL = [
    ("KEYS", "*"), ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "0"),
    ("DEBUG", "SLEEP", "0"), ("SHUTDOWN",), ("REPLICAOF", "NO", "ONE"), ("MODULE", "LIST"), ("ACL", "LIST"),
    ("MONITOR",), ("CLIENT", "KILL", "ID", "1"), ("SAVE",), ("SWAPDB", "0", "1"), ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"), ("GET", "somebody-elses"), ("SET", "{other}:delivery:x", "1"), ("PUBLISH", "c", "m"),
]  # fmt: skip
FORBIDDEN = {
    "publisher": [
        ("EVAL", "return 1", "0"), ("SCRIPT", "LOAD", "return 1"), ("SCAN", "0"), ("GET", "{postier}:payload:x"),
        ("HGETALL", "{postier}:account:main"), ("HSET", "{postier}:account:main", "state", "ready"),
        ("LRANGE", "{postier}:inbox", "0", "-1"), ("DEL", "{postier}:delivery:x"),
    ],
    "inbox": [
        ("EVAL", "return 1", "0"), ("EVALSHA", "0" * 40, "0"), ("LRANGE", "{postier}:inbox", "0", "-1"),
        ("LPOP", "{postier}:inbox"), ("HGETALL", "{postier}:delivery:x"), ("RPUSH", "{postier}:lane:main:u", "x"),
    ],
    "metrics": [
        ("EVAL", "return 1", "0"), ("EVALSHA", "0" * 40, "0"), ("GET", "{postier}:payload:x"), ("SCAN", "0"),
        ("HGETALL", "{postier}:registry"), ("HGETALL", "{postier}:provider"), ("LRANGE", "{postier}:inbox", "0", "-1"),
        ("LRANGE", "{postier}:history:x", "0", "-1"), ("HSET", "{postier}:account:main", "state", "ready"),
        ("DEL", "{postier}:delivery:x"), ("LPOP", "{postier}:inbox"), ("CLIENT", "PAUSE", "1"),
    ],
    "worker": [],
    "console": [("SCRIPT", "LOAD", "return 1")],
}  # fmt: skip


class Server:
    """A server that reads the access list."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        users = folder / "users.acl"
        users.write_text(USERS.read_text("utf-8").replace("CHANGE-", "secret-"), "utf-8")
        command = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        settings = ["--save", "", "--appendonly", "yes", "--maxmemory", "64mb", "--aclfile", str(users)]
        self.process = subprocess.Popen([*command, *settings], stdout=subprocess.DEVNULL)
        until(self.answers, what="the server with the access list")

    def url(self, user: str) -> str:
        return f"redis://{user}:secret-{user}@127.0.0.1:{self.port}/0"

    def client(self, user: str) -> Any:
        return redis.Redis.from_url(self.url(user))

    def answers(self) -> bool:
        assert self.process.poll() is None, "the server does not take deploy/users.acl"
        try:
            with self.client("operator") as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("acl"))
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def house(server: Server, seal_key: str, tmp_path: Path) -> Iterator[House]:
    with server.client("operator") as client:
        client.flushall()
        client.script_flush()
        client.acl_log_reset()
    with ScriptedServer(polite()) as mail:
        made = House(server.url("worker"), NAMESPACE, seal_key, tmp_path, {"main": smtp(mail.port)})
        yield made
        made.close()


def refused(server: Server) -> list[str]:
    """What the server refused anybody, as it noted it."""
    with server.client("operator") as client:
        rows = client.acl_log()
    return [
        f"{row[b'username' if b'username' in row else 'username']} {row.get('object', row.get(b'object'))}"
        for row in rows
    ]


def command(house: House, server: Server, *words: str, user: str = "console") -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}
    env |= {
        "POSTIER_REDIS_URL": server.url(user), "POSTIER_NAMESPACE": NAMESPACE,
        "POSTIER_SEAL_KEYS": house.settings.seal_keys.get_secret_value(),
        "POSTIER_ACCOUNTS_FILE": str(house.accounts_file), "POSTIER_DATA_DIR": str(house.folder),
    }  # fmt: skip
    line = [sys.executable, "-m", "postier.console", *words]
    return subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_every_role_does_its_work_with_the_rights_it_has(server: Server, house: House, seal_key: str) -> None:
    settings = Settings(redis_url=server.url("publisher"), namespace=NAMESPACE, seal_keys=seal_key)  # type: ignore[arg-type]
    with Postier(settings=settings, registry=house.registry) as early:
        with pytest.raises(LedgerUnavailable, match="no worker"):
            early.publish(reset_link(), tenant="school")
        with server.client("operator") as client:
            client.acl_log_reset()

    with Postier(settings=settings) as publisher:  # it reads tenants and accounts in the ledger, as applications do
        worker = house.start_worker()
        until(lambda: "worker.started" in house.log(), what="the worker")
        same = reset_link()
        ids = [publisher.publish(event, tenant="school").deliveries[0] for event in (reset_link(), data_change(), same)]
        publisher.publish(reset_link(same.recipient), tenant="school")  # supersedes, or comes too late to
        publisher.publish(contact_form(), tenant="school")
        house.wait_for_the_end(ids)
        assert publisher.status(ids[0])

    for words in (
        ("doctor", "--indexes"), ("top", "--once"), ("failed",), ("status", ids[0]), ("accounts", "pause", "main"),
        ("unknown", "list"), ("inbox", "list"), ("inbox", "retry", "0123456789ab"),
        ("metrics",),
    ):  # fmt: skip
        done = command(house, server, *words)
        assert "Traceback" not in done.stderr, done.stderr
        assert not re.search("NOPERM|no permissions", done.stdout + done.stderr), done.stdout + done.stderr
    with server.client("operator") as client:  # what waits makes the exporter look closer
        client.rpush("{postier}:lane:main:b", ids[1])
    told = command(house, server, "metrics", user="metrics")
    assert (told.returncode, told.stderr) == (0, "")
    assert "postier_workers 1.0" in told.stdout
    assert "postier_redis_memory_bytes" in told.stdout
    worker.terminate()
    worker.wait(60)
    # CONFIG is asked for and done without: the doctor then says what it could not see.
    assert [row for row in refused(server) if "config" not in row] == []


def test_publishers_go_on_after_the_server_forgot_its_scripts(server: Server, house: House, seal_key: str) -> None:
    settings = Settings(redis_url=server.url("publisher"), namespace=NAMESPACE, seal_keys=seal_key)  # type: ignore[arg-type]
    with Postier(settings=settings, registry=house.registry) as publisher:
        house.start_worker()
        until(lambda: "worker.started" in house.log(), what="the worker")
        publisher.publish(reset_link(), tenant="school")
        with server.client("operator") as client:
            client.script_flush()  # as a restart does

        def again() -> bool:
            try:
                return bool(publisher.publish(reset_link(), tenant="school"))
            except LedgerUnavailable:
                return False

        until(again, what="publishing")


@pytest.mark.parametrize("user", FORBIDDEN)
def test_a_role_can_do_nothing_else(server: Server, user: str) -> None:
    with server.client("operator") as client:
        told = {
            words: client.execute_command("ACL", "DRYRUN", user, *words) for words in FORBIDDEN_TO_ALL + FORBIDDEN[user]
        }
    allowed = [words for words, answer in told.items() if answer in (b"OK", "OK", True)]
    assert not allowed
    with server.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.keys("*")


def test_nobody_gets_in_without_a_name(server: Server) -> None:
    with redis.Redis(port=server.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
