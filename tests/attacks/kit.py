"""The whole path, for attacks: commands and the inbox in front, a worker process behind, real servers at the end."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import SecretStr

from postier.console.main import main
from postier.ledger.embedded import free_port
from postier.ledger.queries import Queries, Status
from postier.ledger.store import Store
from postier.schemas.edge import wrap
from postier.schemas.events import KINDS
from postier.schemas.events.base import EXAMPLE_TIME
from postier.settings.config import Settings
from tests.attacks.lax import LaxServer
from tests.conftest import PATIENCE, until
from tests.drivers.kit import LOCK_STEP, Peer, ScriptedServer, polite
from tests.workers.kit import ENDS, toml
from tests.workers.kit import smtp as smtp_account

DATA = Path(__file__).with_name("data")
YEAR = 2090  # the examples' links must not run out
SENDER = "post@school.example"


def rows(name: str) -> list[dict[str, Any]]:
    """One table of `data/`: JSON Lines, blank lines and lines with # left out."""
    lines = (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines if line.strip() and not line.startswith("#")]
    ids = [row["id"] for row in found]
    assert len(set(ids)) == len(ids), f"{name}: an id stands twice"
    return [_spelled_out(row) for row in found]


def _spelled_out(value: Any) -> Any:
    """Long values stand as {"of": ..., "times": ...} in the tables, with an optional "before" and "after"."""
    if isinstance(value, list):
        return [_spelled_out(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "of" in value and "times" in value:
        many = _spelled_out(value["of"]) * value["times"]
        return value["before"] + many + value["after"] if isinstance(many, str) else many
    return {name: _spelled_out(one) for name, one in value.items()}


def bent(kind: str, changes: Mapping[str, Any], **envelope: Any) -> dict[str, Any]:
    """The kind's example as a producer writes it, with the values at these dotted paths replaced or added."""
    example = KINDS[kind].example(EXAMPLE_TIME.replace(year=YEAR))
    made: dict[str, Any] = json.loads(wrap(example, tenant="school", event_id="e-0").model_dump_json())
    for name in ("id", "idempotency_key", "occurred_at", "source", "account", "reply_to", "not_before", "expires_at"):
        made.pop(name, None)
    made = {name: value for name, value in made.items() if value is not None} | envelope
    for path, value in changes.items():
        *way, last = path.split(".")
        at: Any = made
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        at[int(last) if isinstance(at, list) else last] = copy.deepcopy(value)
    return made


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Mail:
    """One mail as a server took it."""

    mail_from: str
    rcpts: tuple[str, ...]
    octets: bytes

    @property
    def delivery(self) -> str:
        found = re.search(rb"(?im)^message-id:\s*<([^@>]+)@", self.octets)
        assert found, "a mail without a Message-ID"
        return found[1].decode()


class Taker:
    """aiosmtpd's handler: keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.options: list[list[str]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.mails.append(Mail(str(envelope.mail_from), tuple(envelope.rcpt_tos), envelope.content))
        self.options.append(list(envelope.mail_options))
        return "250 2.0.0 OK"


FORMS = {
    "contact": {"recipients": ["office@school.example"], "per_hour": 100_000},
    "lax": {"recipients": ["office@school.example"], "per_hour": 100_000, "account": "lax"},
}
TENANTS: dict[str, Any] = {
    "school": {
        "allowed_hosts": ["school.example", "*.school.example", "pages.example/school"],
        "forms": FORMS,
        "contact_per_hour": 1_000_000,
    },
    "shop": {
        "allowed_hosts": ["shop.example"],
        "default_account": "shop",
        "forms": {"sales": {"recipients": ["sales@shop.example"]}},
    },
}


class Yard:
    """A ledger, its accounts, one worker process and servers, for as long as a test module needs them."""

    def __init__(self, url: str, namespace: str, seal_key: str, folder: Path, **accounts: dict[str, Any]) -> None:
        self.folder = folder
        self.strict, self.ascii_only, self.shop = Taker(), Taker(), Taker()
        self.lax = LaxServer()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self.lax)
        ports = {
            name: self._serve(taker, utf8)
            for name, taker, utf8 in (
                ("main", self.strict, True), ("ascii", self.ascii_only, False), ("shop", self.shop, True),
            )
        }  # fmt: skip
        ports["lax"] = self.lax.port
        ports["words"] = self._stack.enter_context(ScriptedServer(with_words(rows("replies")))).port
        made = {name: account(port, tenant="shop" if name == "shop" else None) for name, port in ports.items()}
        made |= accounts
        self.accounts_file = folder / "accounts.toml"
        self.accounts_file.write_text(toml({"default_account": "main", "accounts": made, "tenants": TENANTS}))
        self.settings = Settings(
            redis_url=url, namespace=namespace, seal_keys=SecretStr(seal_key), accounts_file=self.accounts_file,
            data_dir=folder / "data", threads=8, redis_timeout=12.0, log_level="debug",
        )  # fmt: skip
        self.environment = {
            f"POSTIER_{name.upper()}": str(value)
            for name in Settings.model_fields
            if (value := getattr(self.settings, name)) is not None
        } | {"POSTIER_SEAL_KEYS": seal_key}
        self.store = Store(url, namespace=namespace, timeout=PATIENCE)
        self.queries = Queries(self.store)
        self._workers: list[subprocess.Popen[bytes]] = []

    def _serve(self, taker: Taker, utf8: bool) -> int:
        port = free_port()
        controller = Controller(taker, hostname="127.0.0.1", port=port, enable_SMTPUTF8=utf8)
        controller.start()
        self._stack.callback(controller.stop)
        return port

    def start_worker(self, **environment: str) -> None:
        name = f"worker{len(self._workers)}.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}
        with (self.folder / name).open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "postier.workers.main"], env=env | self.environment | environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._workers.append(worker)
        until(lambda: "worker.started" in (self.folder / name).read_text("utf-8", "replace"), what="the start")

    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.folder.glob("worker*.log")))

    def run(self, *arguments: str) -> Answer:
        """A postier command with this yard's settings, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with self.in_environment(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        return Answer(code, out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def in_environment(self) -> Iterator[None]:
        kept = {name: value for name, value in os.environ.items() if name.startswith("POSTIER_")}
        for name in kept:
            del os.environ[name]
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name in self.environment:
                os.environ.pop(name, None)
            os.environ.update(kept)

    def publish(self, envelopes: Sequence[dict[str, Any] | bytes], name: str = "given", *options: str) -> list[Any]:
        """`postier publish` of one file; the answers in order. Bytes are one line as they are."""
        path = self.folder / f"{name}.jsonl"
        lines = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in envelopes)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        answer = self.run("publish", str(path), *options)
        assert "Traceback" not in answer.err, answer.err
        return answer.lines

    def states(self, ids: list[str]) -> dict[str, str]:
        pipe = self.store.redis.pipeline(transaction=False)
        for identity in ids:
            pipe.hget(self.store.key(f"delivery:{identity}"), "state")
        return {identity: (state or b"").decode() for identity, state in zip(ids, pipe.execute(), strict=True)}

    def wait_for_the_end(self, ids: list[str], seconds: float = 4 * PATIENCE) -> dict[str, str]:
        until(lambda: set(self.states(ids).values()) <= ENDS, seconds, what="the end of every delivery")
        return self.states(ids)

    def status(self, identity: str) -> Status:
        found = self.queries.status(identity)
        assert found is not None
        return found

    def mails(self) -> list[Mail]:
        """What every server took; the lax one's bodies unstuffed."""
        lax = [Mail(_path(one.mail_from), tuple(map(_path, one.rcpts)), unstuffed(one.body)) for one in self.lax.taken]
        return [*self.strict.mails, *self.ascii_only.mails, *self.shop.mails, *lax]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The workers stand still, and whatever they asked of Redis before is done."""
        for worker in self._workers:
            worker.send_signal(signal.SIGSTOP)
        try:
            until(lambda: all(_is_stopped(worker.pid) for worker in self._workers), what="that the workers stand still")
            self.store.redis.ping()
            yield
        finally:
            for worker in self._workers:
                worker.send_signal(signal.SIGCONT)

    def stop_workers(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait(60)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait(10)
        self._stack.close()
        self.store.close()


def _is_stopped(pid: int) -> bool:
    """Whether every thread of the process is."""
    try:
        threads = [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one ended meanwhile
        return False
    return all(thread.rpartition(")")[2].split()[0] == "T" for thread in threads)


def with_words(table: Sequence[Mapping[str, Any]]) -> Callable[[Peer], None]:
    """A server that answers `reply-7@...` with the lines of row 7, at its stage, octet for octet."""
    expected: dict[int, Mapping[str, Any]] = {}

    def answer(peer: Peer, stage: str) -> str | None:
        row = expected.get(peer.number)
        if row is None or row["stage"] != stage:
            return "250 2.1.5 Ok"
        peer.raw(b"".join(str(line).encode("latin-1") + b"\r\n" for line in row["lines"]))
        return None

    def rcpt(peer: Peer, line: str) -> str | None:
        found = re.search(r"<reply-(\d+)@", line)
        expected.pop(peer.number, None)
        if found:
            expected[peer.number] = table[int(found[1])]
        return answer(peer, "rcpt")

    return polite(extensions=LOCK_STEP, RCPT=rcpt, DOT=lambda peer, _: answer(peer, "dot"))


def account(port: int, *, tenant: str | None = None, **more: Any) -> dict[str, Any]:
    """An account for a server on the loopback."""
    made = smtp_account(port, **more)
    made["sender"] = {"address": f"post@{tenant or 'school'}.example", "name": 'Riverside, "the" School'}
    made["brand"] = {"name": "Riverside School", "logo_url": "https://school.example/logo.png"}
    made["limits"] = {"max_connections": 16}
    return made | ({"tenant": tenant} if tenant else {})


def _path(command: bytes) -> str:
    found = re.search(rb"<(.*)>", command)
    return found[1].decode() if found else command.decode("utf-8", "replace")


def unstuffed(body: bytes) -> bytes:
    """A body after RFC 5321 section 4.5.2."""
    body = body.replace(b"\r\n..", b"\r\n.")
    return body[1:] if body.startswith(b"..") else body
