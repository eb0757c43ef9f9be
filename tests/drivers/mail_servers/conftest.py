"""One server of each kind for a whole run, started when the first test asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from postier.ledger.embedded import free_port
from tests.drivers.conftest import PASSWORD, Files, Inbox
from tests.drivers.mail_servers.dovecot import Dovecot, dovecot
from tests.drivers.mail_servers.exim import exim
from tests.drivers.mail_servers.kit import USER, MailServer, taken
from tests.drivers.mail_servers.npm import npm_server
from tests.drivers.mail_servers.postfix import Postfix, postfix

NAMES = ("postfix", "exim", "dovecot", "npm smtp-server", "aiosmtpd")


@pytest.fixture(scope="session")
def submission(files: Files) -> Iterator[tuple[Dovecot, Inbox]]:
    """Dovecot, and the aiosmtpd behind it that takes what it relays."""
    inbox, port = Inbox(), free_port()
    relay = Controller(inbox, hostname="127.0.0.1", port=port, enable_SMTPUTF8=False)
    relay.start()
    try:
        with dovecot(files, port) as running:
            yield running, inbox
    finally:
        relay.stop()


@pytest.fixture(scope="session")
def postfix_server(files: Files, submission: tuple[Dovecot, Inbox]) -> Iterator[Postfix]:
    with postfix(files, submission[0].sasl) as running:
        yield running


@contextlib.contextmanager
def npm_with_password(files: Files) -> Iterator[MailServer]:
    with npm_server(files, ["PLAIN", "LOGIN"], user=USER, password=PASSWORD) as running:
        yield MailServer(running.starttls, running.tls, taken(running.mails), "credentials invalid")


@contextlib.contextmanager
def aiosmtpd_server(files: Files) -> Iterator[MailServer]:
    inbox, ports = Inbox(), (free_port(), free_port())
    logs_in: dict[str, Any] = {"authenticator": inbox.authenticate, "auth_required": True, "enable_SMTPUTF8": True}
    starttls = Controller(
        inbox, hostname="127.0.0.1", port=ports[0], tls_context=files.context, require_starttls=True, **logs_in
    )
    tls = Controller(
        inbox, hostname="127.0.0.1", port=ports[1], ssl_context=files.context, auth_require_tls=False, **logs_in
    )
    with ExitStack() as stack:
        for controller in (starttls, tls):
            controller.start()
            stack.callback(controller.stop)
        yield MailServer(
            *ports,
            taken(lambda: [bytes(mail.original_content or b"") for mail in inbox.taken]),
            refuses="Authentication credentials invalid",
        )


@pytest.fixture(scope="session")
def started(request: pytest.FixtureRequest, files: Files) -> Iterator[Callable[[str], MailServer]]:
    """Start the server of that name, or give the one that runs."""
    alone: dict[str, Callable[[Files], AbstractContextManager[MailServer]]] = {
        "exim": exim,
        "npm smtp-server": npm_with_password,
        "aiosmtpd": aiosmtpd_server,
    }
    servers: dict[str, MailServer] = {}

    def start(name: str) -> MailServer:
        if name == "postfix":
            postfix: Postfix = request.getfixturevalue("postfix_server")
            return postfix.logs_in
        if name == "dovecot":
            dovecot, inbox = request.getfixturevalue("submission")
            return MailServer(
                dovecot.starttls,
                dovecot.tls,
                taken(lambda: [bytes(mail.original_content or b"") for mail in inbox.taken]),
                refuses="Authentication failed",
                adds=frozenset({"received"}),
                utf8=False,
            )
        if name not in servers:
            servers[name] = stack.enter_context(alone[name](files))
        return servers[name]

    with ExitStack() as stack:
        yield start


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest, started: Callable[[str], MailServer]) -> MailServer:
    return started(request.param)
