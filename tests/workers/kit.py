"""Worker processes against real SMTP servers on the loopback, and what came out of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.publish import Accepted, Admitted, Publisher
from postier.ledger.queries import Queries, Status
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.schemas.edge import admit, wrap
from postier.schemas.events import Event
from postier.settings.config import Settings
from postier.settings.seal import Sealer
from tests.conftest import PATIENCE, until
from tests.drivers.kit import ScriptedServer
from tests.ledger.kit import TENANTS

LEASE = 6.0  # a busy machine lets a process stand still for a second or three, which takes nothing from it
SHORT_LEASE = 2.0  # where somebody dies, and nobody else lives to take what a worker that stalls still holds
ENDS = {"sent", "failed", "expired", "unknown", "discarded", "suppressed"}


def smtp(port: int, **more: Any) -> dict[str, Any]:
    """An account's settings for a server on the loopback without TLS."""
    options = {"host": "127.0.0.1", "port": port, "security": "none", "allow_hosts": ["127.0.0.1"], "timeout_ms": 20000}
    options |= more.pop("options", {"auth": "none"})
    return {"driver": "smtp", "sender": {"address": "post@school.example"}, "options": options, **more}


class House:
    """One ledger, its accounts, and the worker processes of a test."""

    def __init__(self, url: str, namespace: str, seal_key: str, folder: Path, accounts: dict[str, Any]) -> None:
        self.folder = folder
        self.accounts_file = folder / "accounts.toml"
        self.accounts_file.write_text(toml({"default_account": next(iter(accounts)), "accounts": accounts,
                                            "tenants": TENANTS}))  # fmt: skip
        self.settings = Settings(
            redis_url=url, namespace=namespace, seal_keys=SecretStr(seal_key), accounts_file=self.accounts_file,
            data_dir=folder / "data", lease_seconds=LEASE, threads=4, redis_timeout=10.0,
        )  # fmt: skip
        self.registry: Registry = self.settings.registry()
        self.store = Store(url, namespace=namespace, timeout=PATIENCE)
        self.publisher = Publisher(self.store, Sealer.from_text(seal_key))
        self.queries = Queries(self.store)
        self.workers: list[subprocess.Popen[bytes]] = []
        configure(self.store, self.registry)
        for name in self.registry.accounts:  # accounts that have sent before: new ones begin with one conversation
            self.store.redis.hset(self.store.key(f"account:{name}"), "proven", 1)

    def start_worker(self, *, before: str = "", **settings: Any) -> subprocess.Popen[bytes]:
        """A worker process; its log is `log()`. `before` is Python that it runs first."""
        values = {name: getattr(self.settings, name) for name in Settings.model_fields} | settings
        values["seal_keys"] = values["seal_keys"].get_secret_value()
        env = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}
        env |= {f"POSTIER_{name.upper()}": str(value) for name, value in values.items()}
        how = ["-c", f"{before}\nimport os\nfrom postier.workers.main import run\nos._exit(run())"]
        with (self.folder / f"worker{len(self.workers)}.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, *(how if before else ("-m", "postier.workers.main"))],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.folder.glob("worker*.log")))

    def publish(self, *events: Event, **options: Any) -> list[str]:
        """Publish in one batch; returns the ids of the deliveries."""
        answers = self.publisher.publish([self.admitted(event, **options) for event in events])
        ids: list[str] = []
        for answer in answers:
            assert isinstance(answer, Accepted), answer
            ids += answer.deliveries
        return ids

    def admitted(self, event: Event, **options: Any) -> Admitted:
        envelope = wrap(event, tenant="school", **options)
        account = self.registry.route(tenant="school", kind=envelope.kind, account=envelope.account)
        return Admitted(envelope, admit(envelope, self.registry), account)

    def status(self, identity: str) -> Status:
        found = self.queries.status(identity)
        assert found is not None
        return found

    def states(self, ids: Iterable[str]) -> Counter[str]:
        pipe = self.store.redis.pipeline(transaction=False)
        for identity in ids:
            pipe.hget(self.store.key(f"delivery:{identity}"), "state")
        return Counter(value.decode() for value in pipe.execute())

    def wait_for_the_end(self, ids: Iterable[str], seconds: float = 2 * PATIENCE) -> Counter[str]:
        ids = list(ids)
        until(lambda: set(self.states(ids)) <= ENDS, seconds, what="the end of every delivery")
        return self.states(ids)

    def wait_for(self, identity: str, state: str, seconds: float = PATIENCE) -> Status:
        until(lambda: self.status(identity).state == state, seconds, what=f"the state {state}")
        return self.status(identity)

    def bring_forward(self, identity: str) -> None:
        """Let the time of a waiting retry come now."""
        self.store.redis.zadd(self.store.key("scheduled"), {identity: 1}, xx=True)

    def bystander(self) -> Claims:
        """Somebody who can write to the ledger but claims nothing."""
        return Claims(self.store, "bystander", lease=SHORT_LEASE, crash_limit=3, keep_sent=3600)

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait(PATIENCE)
        self.store.close()


def toml(table: dict[str, Any]) -> str:
    """A table of tables as TOML: inline below the first two levels."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(entry)}" for key, entry in item.items()) + "}"
        return json.dumps(item)

    lines = [f"{key} = {value(item)}" for key, item in table.items() if not isinstance(item, dict)]
    for name, rows in table.items():
        if isinstance(rows, dict):
            for key, row in rows.items():
                lines.append(f"[{name}.{key}]")
                lines += [f"{field} = {value(item)}" for field, item in row.items()]
    return "\n".join(lines)


def copies(*servers: ScriptedServer) -> Counter[str]:
    """How often each Message-ID came, as the delivery id in it."""
    found: Counter[str] = Counter()
    for server in servers:
        for body in list(server.bodies):
            match = re.search(rb"(?im)^message-id:\s*<([^@>]+)@", body)
            assert match
            found[match[1].decode()] += 1
    return found
