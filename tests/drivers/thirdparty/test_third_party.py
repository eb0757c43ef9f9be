"""A driver of somebody else's: built and installed as a package of its own, found by entry point, held to the kit."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from postier.drivers.branded import BrandedDriver
from postier.drivers.registry import driver_names, load_driver
from postier.drivers.testing import Behaviour, DriverContract, Scene
from postier.schemas.account import Account
from postier.workers.route import build_driver
from tests.conftest import PATIENCE
from tests.drivers.test_contract import SmtpContract

PACKAGE = Path(__file__).parent / "pigeon"
TOKEN = "canary-pigeon-0815"


class Loft:
    """The provider: a real server on a local port that behaves as it is told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.mails = 0
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._talk, args=(sock,), daemon=True))
            self._threads[-1].start()

    def _talk(self, sock: socket.socket) -> None:
        with suppress(OSError), sock, sock.makefile("rb") as lines:
            while line := lines.readline(500):
                if self.behaviour == "silent":
                    continue
                answer = self._answer(*line.decode().split(maxsplit=1), lines=lines)
                if answer is None:
                    return
                sock.sendall(answer.encode() + b"\n")

    def _answer(self, word: str, rest: str, *, lines: Any) -> str | None:
        if word == "TOKEN":
            return "OK" if self.behaviour != "refuses_login" and rest.strip() == TOKEN else f"DENIED {rest.strip()}"
        if word == "TO":
            return {
                "refuses_recipient": "NOBODY", "busy": "BUSY", "throttles": "SLOW", "cuts_before_handover": None,
            }.get(self.behaviour, "OK")  # fmt: skip
        lines.read(int(rest))
        self.mails += 1
        return None if self.behaviour == "cuts_after_handover" else f"TAKEN {self.mails}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package, built and installed into a folder that this process then imports from."""
    folder = tmp_path_factory.mktemp("thirdparty")
    shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
               "--disable-pip-version-check", "--target", str(folder / "target"), str(folder / "source")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(folder / "target"))
    importlib.invalidate_caches()
    TestPigeon.driver = load_driver("pigeon")
    yield
    sys.path.remove(str(folder / "target"))
    sys.modules.pop("pigeon_postier", None)


class TestPigeon(DriverContract):
    secrets = (TOKEN,)
    wrong_options = (({"token": ""}, "token"), ({"port": 0}, "port"), ({"timeout": "soon"}, "timeout"))

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        loft = Loft(behaviour)
        try:
            patience = 0.3 if behaviour == "silent" else PATIENCE
            options = {"host": "127.0.0.1", "port": loft.port, "token": TOKEN, "timeout": patience}
            yield Scene(options, taken=lambda: loft.mails, attempts=lambda: loft.connections)
        finally:
            loft.close()


class TestBrandedOverSmtp(SmtpContract):
    """The branded driver keeps the manners of what it wraps."""

    driver = BrandedDriver
    more: ClassVar[dict[str, Any]] = {"host": "127.0.0.1"}
    wrong_options = (
        ({"driver": "smpt"}, "did you mean smtp"),
        ({"driver": "branded"}, "branded"),
        ({"options": {"port": 25}}, "options.host"),
    )

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        with super().scene(behaviour) as inner:
            yield Scene({"driver": "smtp", "options": dict(inner.options)}, taken=inner.taken, attempts=inner.attempts)


def test_the_installed_driver_is_listed_beside_our_own() -> None:
    assert "pigeon" in driver_names()
    assert "smtp" in driver_names()


def test_an_account_of_the_installed_driver_is_built_as_one_of_ours() -> None:
    row = {"name": "loft", "driver": "pigeon", "sender": {"address": "no-reply@example.org"}}
    account = Account.model_validate({**row, "options": {"host": "pigeons.example.org", "token": TOKEN}})

    driver = build_driver(account)

    assert type(driver).__module__ == "pigeon_postier"
    assert TOKEN not in repr(driver.options)
    driver.close()
