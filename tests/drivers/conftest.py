"""Certificates and real servers, made once a run."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from postier.ledger.embedded import free_port

PASSWORD = "correct-horse"


@dataclass(frozen=True)
class Certificates:
    ca_file: str
    good: ssl.SSLContext
    other_name: ssl.SSLContext
    expired: ssl.SSLContext
    self_signed: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder: Path = tmp_path_factory.mktemp("ca")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    past = datetime.now(UTC) - timedelta(days=1)

    def context(issuer: trustme.CA, *names: str, **changes: Any) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(*names, **changes).configure_cert(made)
        return made

    return Certificates(
        ca_file=str(folder / "ca.pem"),
        good=context(authority, "localhost", "127.0.0.1"),
        other_name=context(authority, "elsewhere.example"),
        expired=context(authority, "localhost", not_before=past - timedelta(days=9), not_after=past),
        self_signed=context(stranger, "localhost"),
    )


@dataclass(frozen=True)
class Files:
    """One authority for all servers of a run, as other programs want it: in files."""

    ca_file: str
    chain: str
    key: str
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder: Path = tmp_path_factory.mktemp("files-ca")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "chain.pem"), append=True)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    return Files(str(folder / "ca.pem"), str(folder / "chain.pem"), str(folder / "key.pem"), context)


class Inbox:
    """What a real server took, with the commands' arguments."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.logins: list[tuple[str, bytes, bytes]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.taken.append(envelope)
        return "250 2.0.0 OK queued as A1B2C3"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((mechanism, data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@dataclass
class Server:
    port: int
    inbox: Inbox


@pytest.fixture
def aiosmtpd() -> Iterator[Callable[..., Server]]:
    """Start aiosmtpd with the given settings; stopped at the end of the test."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Server:
            inbox = Inbox()
            if settings.pop("logs_in", False):
                settings |= {"authenticator": inbox.authenticate, "auth_required": True}
            context = settings.pop("ssl_context", None)
            port = free_port()
            controller = Controller(inbox, hostname="127.0.0.1", port=port, ssl_context=context, **settings)
            controller.start()
            stack.callback(controller.stop)
            return Server(port, inbox)

        yield start
