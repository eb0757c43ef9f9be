"""npm's smtp-server, and how the tests come by it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from postier.ledger.embedded import free_port
from tests.conftest import PATIENCE, until
from tests.drivers.conftest import Files

ROOT = Path(__file__).parents[3]
VERSION = "3.21.6"
_numbers = itertools.count(1)


@dataclass
class NpmServer:
    """A running server: its ports, and what it tells us, line by line and in the order it happened."""

    process: subprocess.Popen[str]
    starttls: int
    tls: int
    told: list[dict[str, Any]] = field(default_factory=list)

    def mails(self) -> list[bytes]:
        return [base64.b64decode(mail) for mail in self._heard("mail")]

    def recipients(self) -> list[list[str]]:
        return self._heard("recipients")

    def logins(self) -> list[str]:
        """What it was shown by those who logged in."""
        return self._heard("login")

    def _heard(self, what: str) -> list[Any]:
        """All of it, up to now: the server repeats our line behind whatever happened before."""
        ours = str(next(_numbers))
        assert self.process.stdin is not None
        self.process.stdin.write(f"{ours}\n")
        self.process.stdin.flush()
        until(lambda: {"asked": ours} in self.told)
        return [line[what] for line in list(self.told) if what in line]


def npm_modules() -> Path:
    """The folder smtp-server is installed in. Skips the test when it cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm's smtp-server as an independent server needs node and npm")
    folder = ROOT / ".postier" / "npm" / f"smtp-server-{VERSION}"
    if not (folder / "node_modules" / "smtp-server").is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(fresh)]
        done = subprocess.run(
            [*command, f"smtp-server@{VERSION}"], capture_output=True, text=True, timeout=600, check=False, cwd=fresh
        )
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            pytest.skip(f"npm cannot install smtp-server {VERSION}: {done.stderr.strip().splitlines()[-1:]}")
        try:
            fresh.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(fresh, ignore_errors=True)
    return folder / "node_modules"


@contextlib.contextmanager
def npm_server(files: Files, methods: list[str], **logins: str) -> Iterator[NpmServer]:
    """Start, yield, stop. `logins`: `user` with a `password`, or with a `token`, the path it stands in."""
    starttls, tls = free_port(), free_port()
    given: dict[str, Any] = {
        "modules": str(npm_modules()),
        "key": files.key,
        "chain": files.chain,
        "methods": methods,
        "listeners": [{"port": starttls, "secure": False}, {"port": tls, "secure": True}],
        **logins,
    }
    process = subprocess.Popen(
        ["node", str(Path(__file__).with_name("npm_server.mjs"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    server = NpmServer(process, starttls, tls)
    begun: queue.Queue[bool] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # it was killed while it spoke
            told = json.loads(line)
            if "listening" in told:
                begun.put(True)
            else:
                server.told.append(told)
        begun.put(False)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        for _ in given["listeners"]:
            assert begun.get(timeout=PATIENCE), "npm's smtp-server did not start"
        yield server
    finally:
        process.kill()
        process.stdin.close()
        process.wait(PATIENCE)
        thread.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
