"""The driver kit over our own drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from postier.drivers.provider import ProviderDriver
from postier.drivers.smtp import SmtpDriver
from postier.drivers.testing import Behaviour, DriverContract, Scene
from tests.drivers.kit import LOCK_STEP, PIPELINING, Peer, Script, ScriptedServer, polite

SECRET = "canary-secret-0815"


def _leave(peer: Peer, line: str) -> None:
    peer.leave()


def script(behaviour: Behaviour, extensions: tuple[str, ...]) -> Script:
    answers: dict[str, Any] = {
        "accepts": {},
        "refuses_login": {"AUTH": lambda peer, line: f"535 5.7.8 no: {line} {SECRET}"},
        "refuses_recipient": {"RCPT": "550 5.1.1 no such user"},
        "busy": {"MAIL": "451 4.3.2 try again later"},
        "throttles": {"MAIL": "450 4.7.1 too many messages, slow down"},
        "cuts_before_handover": {"RCPT": _leave},
        "cuts_after_handover": {"DOT": _leave},
    }
    if behaviour == "silent":
        return Peer.wait_until_gone
    return polite(extensions=(*extensions, "AUTH PLAIN LOGIN"), **({"AUTH": "235 2.7.0 welcome"} | answers[behaviour]))


class SmtpContract(DriverContract):
    secrets = (SECRET,)
    extensions: ClassVar[tuple[str, ...]] = PIPELINING
    more: ClassVar[dict[str, Any]] = {"host": "127.0.0.1"}

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        with ScriptedServer(script(behaviour, self.extensions)) as server:
            options = {
                "port": server.port,
                "security": "none",
                "username": "office@example.org",
                "password": SECRET,
                "allow_plain_login": True,
                "allow_hosts": ("127.0.0.1",),
            } | ({"timeout_ms": 300} if behaviour == "silent" else {})
            yield Scene(options | self.more, taken=lambda: len(server.bodies), attempts=lambda: server.connections)


class TestSmtp(SmtpContract):
    driver = SmtpDriver
    wrong_options = (
        ({"host": "https://x.example"}, "host"),
        ({"port": 0}, "port"),
        ({"security": "maybe"}, "security"),
        ({"allow_plain_login": False}, "allow_plain_login"),
        ({"password": None}, "password"),
    )


class TestSmtpInLockStep(SmtpContract):
    driver = SmtpDriver
    extensions = LOCK_STEP


class TestProvider(SmtpContract):
    driver = ProviderDriver
    more: ClassVar[dict[str, Any]] = {"host": "127.0.0.1", "preset": "brevo"}
    wrong_options = (
        ({"preset": "brevvo"}, "brevo"),
        ({"username": None}, "username"),
        ({"security": "none", "allow_plain_login": False}, "allow_plain_login"),
    )
