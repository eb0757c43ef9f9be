"""The demo's mail server: a real SMTP conversation with STARTTLS and logins, on loopback; what it takes becomes files.

It is as contrary as real servers: it refuses passwords that are not the user's, is busy once for one user, and its
filter turns down the first copy of mail to addresses that begin with `filtered`.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import logging
import re
import ssl
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, AuthResult

_START_SECONDS = 10.0
_HEAD = """<!doctype html><meta charset="utf-8"><title>Mail of the demo</title>
<meta name="viewport" content="width=device-width">
<style>body{font:15px system-ui;margin:2em}td,th{padding:.3em 1em .3em 0;text-align:left}</style>
<h1>Mail of the demo</h1><p>New mail comes at the end. The .eml files open in any mail program.</p>
<table><tr><th>Time (UTC)<th>Account<th>To<th>Subject<th>
"""


class Catcher:
    """The server in a thread of its own. `passwords` holds one file per user; `busy_once` names users refused once.

    Mail of user `x` goes to `mail/x/`, with a page of all mail in `mail/index.html`.
    """

    def __init__(self, *, passwords: Path, mail: Path, certificate: Path, busy_once: Collection[str] = ()) -> None:
        self.port = 0
        self.taken = 0
        self._passwords = passwords
        self._mail = mail
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        self._busy = set(busy_once)
        self._filtered: set[str] = set()
        self._numbers = count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="demo-catcher", daemon=True)
        self._up = threading.Event()
        self._sessions: WeakSet[SMTP] = WeakSet()

    def start(self) -> Catcher:
        """Listen on a free port, which `port` then names."""
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        self._thread.start()
        if not self._up.wait(_START_SECONDS):
            raise RuntimeError("the mail catcher does not start")
        return self

    def stop(self) -> None:
        """Close every connection. Calling twice is safe."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._loop.create_server(self._protocol, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _hang_up(self) -> None:
        for session in list(self._sessions):
            transport: Any = session.transport
            if transport is not None:
                transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)

    def _protocol(self) -> SMTP:
        session = SMTP(
            self, hostname="mail.demo.test", ident="postier demo", enable_SMTPUTF8=True, loop=self._loop,
            tls_context=self._tls, require_starttls=True, auth_required=True, authenticator=self._authenticate,
        )  # fmt: skip
        self._sessions.add(session)
        return session

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        login = bytes(data.login).decode("utf-8", "replace")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", login):
            return AuthResult(success=False, handled=False)
        try:
            known = (self._passwords / login).read_bytes().strip()
        except OSError:
            return AuthResult(success=False, handled=False)
        right = hmac.compare_digest(known, bytes(data.password))
        return AuthResult(success=right, handled=right, auth_data=login if right else None)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Be busy once where told so."""
        if session.auth_data in self._busy:
            self._busy.discard(session.auth_data)
            return "451 4.3.0 Temporary local problem, please try again"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep the mail as a file."""
        message = BytesParser(policy=policy.default).parsebytes(envelope.original_content)
        if any(str(to).startswith("filtered") for to in envelope.rcpt_tos):
            known = str(message["Message-ID"])
            if known not in self._filtered:
                self._filtered.add(known)
                return "554 5.6.0 The content filter does not take this message"
        self._keep(session.auth_data, envelope, message)
        self.taken += 1
        return "250 2.0.0 Taken"

    def _keep(self, user: str, envelope: Any, message: EmailMessage) -> None:
        now = datetime.now(UTC)
        subject = str(message["Subject"] or "")
        words = re.sub(r"[^\w]+", "-", subject).strip("-")[:50] or "mail"
        folder = self._mail / user
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{now:%Y%m%d-%H%M%S}-{next(self._numbers):04d}-{words}"
        (folder / f"{name}.eml").write_bytes(envelope.original_content)
        links = f'<a href="{user}/{html.escape(name)}.eml">mail</a>'
        page = message.get_body(("html",))
        if page is not None:
            (folder / f"{name}.html").write_text(str(page.get_content()), encoding="utf-8")
            links += f' · <a href="{user}/{html.escape(name)}.html">look</a>'
        cells = (f"{now:%H:%M:%S}", user, ", ".join(envelope.rcpt_tos), subject)
        row = "".join(f"<td>{html.escape(cell)}" for cell in cells)
        index = self._mail / "index.html"
        with index.open("a", encoding="utf-8") as page_of_all:
            page_of_all.write(("" if page_of_all.tell() else _HEAD) + f"<tr>{row}<td>{links}\n")
