"""Two independent servers that know XOAUTH2: npm's smtp-server and Dovecot's submission service."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.drivers.conftest import Server
from tests.drivers.kit import wait_for
from tests.drivers.oauth.conftest import Files
from tests.drivers.oauth.services import MAILBOX
from tests.drivers.oauth.web import Reply, Request, Web, json_reply
from tests.drivers.ports import free_port

ROOT = Path(__file__).parents[3]
VERSION = "3.21.6"
HERE = Path(__file__).parent


@dataclass
class Mailboxes:
    """A running server that takes the tokens `accept` was told, for MAILBOX; `logins` are those that were tried."""

    port: int
    accept: Callable[[str], object]
    taken: Callable[[], list[bytes]]
    logins: list[str] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)


def npm_modules() -> Path:
    """The folder smtp-server is installed in. Skips the test when it cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm's smtp-server as an independent XOAUTH2 server needs node and npm")
    folder = ROOT / ".postier" / "npm" / f"smtp-server-{VERSION}"
    if not (folder / "node_modules" / "smtp-server").is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(fresh)]
        done = subprocess.run(
            [*command, f"smtp-server@{VERSION}"], capture_output=True, text=True, timeout=60, check=False, cwd=fresh
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
def npm_server(files: Files, folder: Path) -> Iterator[Mailboxes]:
    """Start npm's smtp-server with STARTTLS, yield, stop."""
    given = {
        "modules": str(npm_modules()),
        "key": files.key,
        "chain": files.chain,
        "token": str(folder / "token"),
        "mailbox": MAILBOX,
        "port": free_port(),
    }
    (folder / "token").write_text("none")
    mails: list[bytes] = []
    server = Mailboxes(int(str(given["port"])), (folder / "token").write_text, lambda: mails)
    process = subprocess.Popen(
        ["node", str(HERE / "npm_server.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    begun: queue.Queue[bool] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            if "listening" in told:
                begun.put(True)
            elif "login" in told:
                server.logins.append(told["login"])
            else:
                mails.append(base64.b64decode(told["mail"]))
                server.recipients.append(told["recipients"])
        begun.put(False)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert begun.get(timeout=20), "npm's smtp-server did not start"
        yield server
    finally:
        process.kill()
        process.wait(5)
        thread.join(5)
        assert process.stdout is not None
        process.stdout.close()


DOVECOT = """
protocols = submission
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
hostname = dovecot.example.org
ssl = required
ssl_cert = <{chain}
ssl_key = <{key}
auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:{folder}/mail
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid=dovenull gid=dovenull home={folder}/mail
}}
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_ssl = no
submission_relay_trusted = no
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
    program = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or not Path("/usr/lib/dovecot/submission").exists() or os.geteuid() != 0:
        pytest.skip("Dovecot as an independent XOAUTH2 server needs dovecot-submissiond installed and root")
    accepted: set[str] = set()
    inbox = relay.inbox.taken
    server = Mailboxes(free_port(), accepted.add, lambda: [bytes(mail.original_content or b"") for mail in inbox])

    def tell(request: Request) -> Reply:
        token = request.query["access_token"]
        server.logins.append(token)
        good = token in accepted
        return json_reply({"email": MAILBOX, "active": "yes"} if good else {"error": "invalid"}, 200 if good else 400)

    folder = Path(tempfile.mkdtemp(prefix="postier-dovecot-"))
    folder.chmod(0o755)
    try:
        with Web(None, tell) as introspection:
            (folder / "mail").mkdir()
            shutil.chown(folder / "mail", "dovenull", "dovenull")
            values = {
                "folder": folder,
                "chain": files.chain,
                "key": files.key,
                "port": server.port,
                "relay": relay.port,
            }
            (folder / "dovecot.conf").write_text(DOVECOT.format(**values))
            (folder / "oauth2.conf").write_text(INTROSPECTION.format(port=introspection.port))
            process = subprocess.Popen(
                [program, "-F", "-c", str(folder / "dovecot.conf")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                log = folder / "log"
                wait_for(lambda: process.poll() is not None or _listens(server.port), 15)
                if process.poll() is not None:
                    pytest.fail("Dovecot did not start: " + (log.read_text()[-2000:] if log.exists() else "no log"))
                yield server
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(5)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
