"""From the command line to the wire: accounts appear in a running worker, and a brand's mail changes its sender."""

from __future__ import annotations

import email
import email.policy
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlencode

import pytest

from postier.client import Postier
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from postier.schemas.events import ResetLink
from postier.workers.main import _REFRESH_SECONDS
from tests.conftest import PATIENCE, until
from tests.console.helpers import Run
from tests.drivers.kit import ScriptedServer, polite


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that was started before there was any account."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")} | environment
    with (tmp_path / "worker.log").open("ab") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "postier.workers.main"], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    until(lambda: "worker.started" in (tmp_path / "worker.log").read_text(), what="a started worker")
    yield running
    running.send_signal(signal.SIGTERM)
    try:
        running.wait(10)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait(10)


def arrived(server: ScriptedServer, number: int, seconds: float = PATIENCE) -> EmailMessage:
    until(lambda: len(server.bodies) >= number, seconds, what=f"mail number {number}")
    return email.message_from_bytes(bytes(server.bodies[number - 1]), policy=email.policy.default)


def publish(postier: Postier) -> str:
    now = datetime.now(UTC)
    event = ResetLink(
        recipient="sam@example.org", requested_at=now, expires_at=now + timedelta(hours=1),
        action_url=f"https://shop.example/reset?n={time.monotonic_ns()}",
    )  # fmt: skip
    return postier.publish(event, tenant="shop").deliveries[0]


def test_a_brand_s_mail_leaves_from_the_default_sender_until_its_owner_confirmed(
    postier: Run, worker: subprocess.Popen[bytes], environment: dict[str, str], store: Store
) -> None:
    with ScriptedServer(polite()) as server, Postier() as client:
        plain = ("-o", f"port={server.port}", "-o", "host=127.0.0.1", "-o", "security=none", "-o", "auth=none")
        commands: list[tuple[str, ...]] = [
            ("tenants", "set", "shop", "--allowed-host", "shop.example"),
            ("accounts", "add", "main", "--driver", "smtp", "--sender", "Mail <post@instance.example>", *plain),
            ("accounts", "default", "main"),
            ("accounts", "add", "brand", "--driver", "branded", "--tenant", "shop", "--sender",
             "The Shop <hello@shop.example>"),
            ("accounts", "default", "brand", "--tenant", "shop"),
        ]  # fmt: skip
        for command in commands:
            answer = postier(*command)
            assert answer.code == 0, answer.out + answer.err
        checked = len(server.bodies)

        first = publish(client)
        mail = arrived(server, checked + 1)
        assert mail["From"] == "The Shop <post@instance.example>"
        assert mail["Reply-To"] == "hello@shop.example"
        until(lambda: (found := Queries(store).status(first)) is not None and found.state == "sent")

        asked = postier("senders", "add", "hello@shop.example", "--tenant", "shop", "--name", "The Shop",
                        "--account", "brand", "--json")  # fmt: skip
        assert asked.code == 0, asked.err
        question = arrived(server, checked + 2)
        assert (question["From"], question["To"]) == ("Mail <post@instance.example>", "The Shop <hello@shop.example>")
        part = question.get_body(("plain",))
        assert part is not None
        link = re.search(r"https://mail\.instance\.example(/senders/confirm\?t=(\S+))", part.get_content())
        assert link
        assert link[2] not in asked.out

        serving = subprocess.Popen(
            [sys.executable, "-m", "postier.console", "senders", "serve", "--port", "0"], stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            assert serving.stderr is not None
            port = int(serving.stderr.readline().rsplit(b":", 1)[1])
            for method, body in (("GET", None), ("POST", urlencode({"t": link[2]}))):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                target = link[1] if method == "GET" else "/senders/confirm"
                connection.request(method, target, body, {"Content-Type": "application/x-www-form-urlencoded"})
                assert connection.getresponse().status == 200
                connection.close()
            confirmed_at = time.monotonic()
        finally:
            serving.terminate()
            rest = serving.communicate(timeout=PATIENCE)[1]
        assert (serving.returncode, rest) == (0, b"")
        (sender,) = postier("senders", "list", "--json").json["senders"]
        assert sender["state"] == "confirmed"

        number = checked + 3
        publish(client)
        mail = arrived(server, number)
        while mail["From"] != "The Shop <hello@shop.example>":
            assert time.monotonic() - confirmed_at < PATIENCE
            number += 1
            publish(client)
            mail = arrived(server, number)
        assert mail["Reply-To"] is None
        assert worker.poll() is None


def test_a_changed_account_is_used_by_a_running_worker_within_five_seconds(
    postier: Run, worker: subprocess.Popen[bytes], environment: dict[str, str], store: Store
) -> None:
    assert _REFRESH_SECONDS < 4  # what follows waits longer, for the sake of slow machines
    with ScriptedServer(polite()) as old, ScriptedServer(polite()) as new, Postier() as client:
        plain = ("-o", "host=127.0.0.1", "-o", "security=none", "-o", "auth=none")
        for command in (
            ("tenants", "set", "shop", "--allowed-host", "shop.example"),
            ("accounts", "add", "main", "--driver", "smtp", "--sender", "post@shop.example", "--tenant", "shop",
             "-o", f"port={old.port}", *plain),
            ("accounts", "default", "main", "--tenant", "shop"),
        ):  # fmt: skip
            answer = postier(*command)
            assert answer.code == 0, answer.out + answer.err
        publish(client)
        until(lambda: len(old.bodies) == 1, what="mail at the old server")

        assert postier("accounts", "edit", "main", "-o", f"port={new.port}", "--json").code == 0
        changed_at = time.monotonic()
        while not new.bodies:
            identity = publish(client)
            until(lambda: Queries(store).status(identity).state == "sent")  # type: ignore[union-attr]  # noqa: B023
            assert time.monotonic() - changed_at < PATIENCE
