"""A private Postfix: its own configuration, queue and mailboxes in a throw-away folder, unprivileged port, loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.kit import wait_for
from tests.drivers.ports import free_port

DAEMONS = Path("/usr/lib/postfix/sbin")

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.example.org
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
relay_domains =
default_transport = error:no relaying from here
smtputf8_enable = yes
message_size_limit = 3000000
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = example.com
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = regexp:{folder}/boxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 50
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_restrictions =
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/server.pem
"""

BOXES = """
if !/^missing@/
/@example\\.com$/ inbox/
endif
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running instance: where it listens and what it delivered."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._inbox = folder / "mail" / "inbox" / "new"

    def delivered(self, message_id: str) -> list[bytes]:
        """The mails with that Message-ID, as they lie in the mailbox."""
        if not self._inbox.is_dir():
            return []
        found = [path.read_bytes() for path in self._inbox.iterdir()]
        return [octets for octets in found if message_id.encode() in octets]


@contextlib.contextmanager
def running(server_pem: bytes) -> Iterator[Postfix]:
    """Start, yield, stop. Skips the test where Postfix cannot be had."""
    if shutil.which("postfix") is None or not DAEMONS.is_dir() or os.geteuid() != 0:
        pytest.skip("Postfix as a second server needs postfix installed and root")
    import pwd

    owner = pwd.getpwnam("postfix")
    folder = Path(tempfile.mkdtemp(prefix="postier-postfix-"))
    port = free_port()
    try:
        folder.chmod(0o755)
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir()
        for name in ("data", "mail"):
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
        values = {"folder": folder, "daemons": DAEMONS, "uid": owner.pw_uid, "gid": owner.pw_gid, "port": port}
        (folder / "etc" / "main.cf").write_text(MAIN.format(**values))
        (folder / "etc" / "master.cf").write_text(MASTER.format(**values))
        (folder / "boxes").write_text(BOXES)
        (folder / "server.pem").write_bytes(server_pem)
        (folder / "server.pem").chmod(0o600)
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            ["/usr/sbin/postfix", "-c", str(folder / "etc"), "start-fg"], stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(lambda: process.poll() is not None or _listens(port), 15)
            if process.poll() is not None:
                pytest.fail("Postfix did not start: " + (folder / "log").read_text()[-2000:])
            yield Postfix(folder, port)
        finally:
            subprocess.run(["/usr/sbin/postfix", "-c", str(folder / "etc"), "abort"], capture_output=True, check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait(5)
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
