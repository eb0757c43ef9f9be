"""Two independent servers that know XOAUTH2: npm's smtp-server and Dovecot's submission service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.drivers.conftest import Files, Server
from tests.drivers.mail_servers import dovecot as mail_dovecot
from tests.drivers.mail_servers import npm as mail_npm
from tests.drivers.oauth.services import MAILBOX
from tests.drivers.oauth.web import Reply, Request, Web, json_reply


@dataclass
class Mailboxes:
    """A running server that takes the tokens `accept` was told, for MAILBOX; `logins` are those that were tried.

    What it answers is complete: whatever a client has an answer to is in it.
    """

    port: int
    accept: Callable[[str], object]
    taken: Callable[[], list[bytes]]
    logins: Callable[[], list[str]]
    recipients: Callable[[], list[list[str]]]


@contextlib.contextmanager
def npm_server(files: Files, folder: Path) -> Iterator[Mailboxes]:
    """Start npm's smtp-server with STARTTLS, yield, stop."""
    token = folder / "token"
    token.write_text("none")
    with mail_npm.npm_server(files, ["XOAUTH2"], user=MAILBOX, token=str(token)) as server:
        yield Mailboxes(server.starttls, token.write_text, server.mails, server.logins, server.recipients)


TOKENS = """
auth_mechanisms = xoauth2 oauthbearer
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
"""

INTROSPECTION = """
tokeninfo_url = http://127.0.0.1:{port}/tokeninfo?access_token=
username_attribute = email
active_attribute = active
active_value = yes
"""


@contextlib.contextmanager
def dovecot(files: Files, relay: Server) -> Iterator[Mailboxes]:
    """Start a private Dovecot that asks us about tokens and hands mail to `relay`, yield, stop."""
    accepted: set[str] = set()
    logins: list[str] = []
    inbox = relay.inbox.taken

    def tell(request: Request) -> Reply:
        token = request.query["access_token"]
        logins.append(token)
        good = token in accepted
        return json_reply({"email": MAILBOX, "active": "yes"} if good else {"error": "invalid"}, 200 if good else 400)

    with Web(None, tell) as introspection:
        asks = {"oauth2.conf": INTROSPECTION.format(port=introspection.port)}
        with mail_dovecot.dovecot(files, relay.port, TOKENS, **asks) as server:
            yield Mailboxes(  # it asks about a token, and hands on a mail, before it answers
                server.starttls,
                accepted.add,
                lambda: [bytes(mail.original_content or b"") for mail in inbox],
                lambda: logins,
                lambda: [mail.rcpt_tos for mail in inbox],
            )
