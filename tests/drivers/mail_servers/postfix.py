"""A private Postfix: its own configuration, queue and mailboxes in a throw-away folder, unprivileged port, loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from postier.ledger.embedded import free_port
from tests.drivers.conftest import Files
from tests.drivers.mail_servers.kit import MailServer, Program, maildir, running, throwaway_folder

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
virtual_mailbox_domains = example.com, exämple.com
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = regexp:{folder}/boxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 50
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_restrictions =
smtpd_error_sleep_time = 0
smtpd_tls_security_level = may
smtpd_tls_chain_files = {key}, {chain}
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_tls_auth_only = yes
"""

BOXES = """
if !/^missing@/
/@ex(a|ä)mple\\.com$/ inbox/
endif
"""

LOGS_IN = (
    "-o smtpd_sasl_auth_enable=yes -o smtpd_tls_security_level=encrypt "
    "-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"
)

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{submission} inet n - n - - smtpd {logs_in}
127.0.0.1:{submissions} inet n - n - - smtpd {logs_in} -o smtpd_tls_wrappermode=yes
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


@dataclass(frozen=True)
class Postfix:
    """A running instance: a port that takes mail from everybody here, and those for people who log in."""

    port: int
    logs_in: MailServer

    @property
    def delivered(self) -> Callable[[str], list[bytes]]:
        """The mails with that Message-ID, as they lie in the mailbox."""
        return self.logs_in.arrived


@contextlib.contextmanager
def postfix(files: Files, sasl: Path) -> Iterator[Postfix]:
    """Start, yield, stop; `sasl` is the socket of the Dovecot that knows the passwords. Skips where there is none."""
    if shutil.which("postfix") is None or not DAEMONS.is_dir() or os.geteuid() != 0:
        pytest.skip("Postfix as a second server needs postfix installed and root")
    import pwd

    owner = pwd.getpwnam("postfix")
    ports = free_port(), free_port(), free_port()
    with throwaway_folder("postfix") as folder:
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir()
        for name in ("data", "mail"):
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
        main = MAIN.format(
            folder=folder, daemons=DAEMONS, uid=owner.pw_uid, gid=owner.pw_gid, sasl=sasl, key=files.key,
            chain=files.chain,
        )  # fmt: skip
        (folder / "etc" / "main.cf").write_text(main)
        master = MASTER.format(port=ports[0], submission=ports[1], submissions=ports[2], logs_in=LOGS_IN)
        (folder / "etc" / "master.cf").write_text(master)
        (folder / "boxes").write_text(BOXES)
        command: list[str | Path] = ["/usr/sbin/postfix", "-c", folder / "etc"]
        program = Program("Postfix", [*command, "start-fg"], ports, folder / "log", stop=[*command, "abort"])
        with running(program):
            yield Postfix(
                ports[0],
                MailServer(
                    ports[1],
                    ports[2],
                    maildir(folder / "mail" / "inbox" / "new"),
                    refuses="authentication failed",
                    adds=frozenset({"return-path", "x-original-to", "delivered-to", "received"}),
                    line_end=b"\n",
                ),
            )
