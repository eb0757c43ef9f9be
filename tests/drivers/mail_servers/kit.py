"""What the mail servers of others have in common: how one is started and stopped, and what it says of itself."""

from __future__ import annotations

import contextlib
import email.parser
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from postier.schemas.email import Email
from tests.conftest import PATIENCE
from tests.drivers.conftest import PASSWORD
from tests.drivers.kit import mail, wait_for

USER = "office@example.org"
LOGIN = {"username": USER, "password": PASSWORD}

BODIES = [
    b"plain\r\n",
    b".\r\n",
    b"..\r\n.\r\n...\r\n.x\r\n",
    b"\r\n\r\n.\r\n\r\n",
    b"trailing blank lines\r\n\r\n\r\n\r\n",
    b"no line end at the end",
    b"y" * 998 + b"\r\n." + b"z" * 997 + b"\r\n",  # RFC 5322 section 2.1.1: 998 octets in a line
    b"\tspaces at the end  \r\n \r\nFrom here\r\n>From there\r\n",
    b"a line\r\n" * 5_000,
]


@dataclass(frozen=True)
class MailServer:
    """A running server that lets USER in, over STARTTLS on one port and TLS from the first octet on another.

    `arrived` gives the mails with a Message-ID as they lie there now. A line ends there with `line_end`, and the header
    fields of `adds` may stand in front of ours. `refuses` are its words about a wrong password.
    """

    starttls: int
    tls: int
    arrived: Callable[[str], list[bytes]]
    refuses: str
    adds: frozenset[str] = frozenset()
    line_end: bytes = b"\r\n"
    utf8: bool = True

    def options(self, security: str, ca_file: str, **changes: Any) -> dict[str, Any]:
        """The options of an account here."""
        port = self.tls if security == "tls" else self.starttls
        return {"host": "localhost", "port": port, "security": security, "ca_file": ca_file, **LOGIN, **changes}


def whole(number: int, *recipients: str, body: bytes, extra: bytes = b"", smtputf8: bool = False) -> Email:
    """A mail to which a server has nothing to add but its own lines in front."""
    headers = (
        b"From: Office <office@example.org>\r\nTo: someone@example.com\r\n%sSubject: Sample\r\n"
        b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%d@example.org>\r\n\r\n" % (extra, number)
    )
    return mail(number, *recipients, mime=headers + body, smtputf8=smtputf8)


@contextlib.contextmanager
def throwaway_folder(name: str) -> Iterator[Path]:
    """A folder that a server's own user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix=f"postier-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Program:
    """A server in the foreground: its command, the ports it will listen on, and how it is told to end."""

    name: str
    command: list[str | Path]
    ports: tuple[int, ...]
    log: Path
    user: str | None = None
    environment: Mapping[str, str] | None = None
    stop: list[str | Path] = field(default_factory=list)


@contextlib.contextmanager
def running(program: Program) -> Iterator[None]:
    """Start it, yield once it listens, stop it."""
    who: dict[str, Any] = {"user": program.user, "group": "nogroup", "extra_groups": []} if program.user else {}
    with program.log.with_suffix(".out").open("wb") as out:
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=None if program.environment is None else {**os.environ, **program.environment},
            **who,
        )
        try:
            wait_for(lambda: process.poll() is not None or all(map(listens, program.ports)), 4 * PATIENCE)
            if process.poll() is not None:
                said = [path.read_text()[-2000:] for path in (program.log, Path(out.name)) if path.exists()]
                pytest.fail(f"{program.name} did not start: {''.join(said)}")
            yield
        finally:
            if program.stop:
                subprocess.run(program.stop, capture_output=True, check=False, timeout=2 * PATIENCE)
            else:
                process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def maildir(folder: Path) -> Callable[[str], list[bytes]]:
    """What lies in a maildir, by Message-ID."""

    def arrived(message_id: str) -> list[bytes]:
        found = [path.read_bytes() for path in folder.iterdir()] if folder.is_dir() else []
        return [octets for octets in found if message_id.encode() in octets]

    return arrived


def taken(mails: Callable[[], list[bytes]]) -> Callable[[str], list[bytes]]:
    """The same of a server that hands its mails to us."""
    return lambda message_id: [octets for octets in mails() if message_id.encode() in octets]


def assert_arrived(server: MailServer, sent: Email) -> None:
    """The mail lies there once, unstuffed and whole. Only the header fields a server owns may stand in front of it, and
    only the line end that SMTP puts behind a body without one may follow. Line ends are compared as the server keeps
    them.
    """
    wait_for(lambda: len(server.arrived(sent.message_id)) >= 1)
    (stored,) = server.arrived(sent.message_id)
    ours = sent.mime if sent.mime.endswith(b"\r\n") else sent.mime + b"\r\n"
    ours = ours.replace(b"\r\n", server.line_end)
    assert stored[-len(ours) :] == ours
    added = email.parser.BytesHeaderParser().parsebytes(stored[: -len(ours)])
    assert {name.lower() for name in added} <= server.adds
    assert not added.get_payload()
