"""A private Exim: run from where its package was unpacked, as nobody, its queue and mailbox in a throw-away folder.

Debian's Exim wants a user named Debian-exim, and installing it would replace Postfix: nss_wrapper tells the process,
and it alone, that nobody has that name.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator

import pytest

from postier.ledger.embedded import free_port
from tests.drivers.conftest import PASSWORD, Files
from tests.drivers.mail_servers.kit import USER, MailServer, Program, maildir, running, throwaway_folder
from tools.servers import EXIM

CONFIGURATION = """
exim_path = {folder}/exim4
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/pid
primary_hostname = exim.example.org
keep_environment = LD_LIBRARY_PATH : LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
local_interfaces = 127.0.0.1
daemon_smtp_ports = {starttls} : {tls}
tls_on_connect_ports = {tls}
tls_certificate = {folder}/chain.pem
tls_privatekey = {folder}/key.pem
tls_advertise_hosts = *
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
smtp_accept_queue_per_connection = 0
deliver_drop_privilege = true
never_users =
acl_smtp_rcpt = recipient

begin acl
recipient:
  accept authenticated = *
  deny message = log in first

begin routers
everybody:
  driver = accept
  transport = box

begin transports
box:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  use_crlf
  check_string =
  escape_string =

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
"""


@contextlib.contextmanager
def exim(files: Files) -> Iterator[MailServer]:
    """Start, yield, stop. Skips the test where Exim was not unpacked."""
    if not EXIM.is_dir():
        pytest.skip("Exim needs its Debian package unpacked, by `run.py test` on a machine with apt-get")
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    ports = free_port(), free_port()
    with throwaway_folder("exim") as folder:
        # whoever runs it may not be allowed into the checkout
        shutil.copytree(EXIM / "lib", folder / "lib")
        shutil.copy(EXIM / "exim4", folder / "exim4")
        shutil.copy(files.chain, folder / "chain.pem")
        shutil.copy(files.key, folder / "key.pem")
        for name in ("spool", "mail"):
            (folder / name).mkdir()
        configuration = folder / "configuration"
        configuration.write_text(
            CONFIGURATION.format(folder=folder, starttls=ports[0], tls=ports[1], user=USER, password=PASSWORD)
        )
        (folder / "passwd").write_text(f"Debian-exim:x:{owner.pw_uid}:{owner.pw_gid}::/nonexistent:/bin/false\n")
        (folder / "group").write_text(f"Debian-exim:x:{owner.pw_gid}:\n")
        if os.geteuid() == 0:
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        program = Program(
            "Exim",
            [folder / "exim4", "-C", configuration, "-bdf"],
            ports,
            folder / "mainlog",
            user=owner.pw_name if os.geteuid() == 0 else None,
            environment={
                "LD_LIBRARY_PATH": str(folder / "lib"),
                "LD_PRELOAD": str(folder / "lib" / "libnss_wrapper.so"),
                "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
                "NSS_WRAPPER_GROUP": str(folder / "group"),
            },
        )
        with running(program):
            yield MailServer(
                *ports,
                maildir(folder / "mail" / "new"),
                refuses="Incorrect authentication data",
                adds=frozenset({"received"}),
            )
