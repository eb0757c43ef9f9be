"""A private Dovecot: its submission service, which hands mail on to a relay, and its passwords for Postfix."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from postier.ledger.embedded import free_port
from tests.drivers.conftest import PASSWORD, Files
from tests.drivers.mail_servers.kit import USER, Program, running, throwaway_folder

CONFIGURATION = """
protocols = submission
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
hostname = dovecot.example.org
ssl = required
ssl_cert = <{chain}
ssl_key = <{key}
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:{folder}/mail
userdb {{
  driver = static
  args = uid=dovenull gid=dovenull home={folder}/mail
}}
service submission-login {{
  inet_listener submission {{
    port = {starttls}
  }}
  inet_listener submissions {{
    port = {tls}
    ssl = yes
  }}
}}
service auth {{
  unix_listener {folder}/sasl {{
    mode = 0666
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

PASSWORDS = """
auth_mechanisms = plain login
passdb {{
  driver = passwd-file
  args = scheme=plain username_format=%u {folder}/users
}}
"""


@dataclass(frozen=True)
class Dovecot:
    """A running instance: its ports, and the socket at which other servers may ask about passwords."""

    starttls: int
    tls: int
    sasl: Path


@contextlib.contextmanager
def dovecot(files: Files, relay: int, logins: str = PASSWORDS, **more: str) -> Iterator[Dovecot]:
    """Start, yield, stop. `logins` are the settings that say who may come in, `more` files beside them, by name."""
    program = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or not Path("/usr/lib/dovecot/submission").exists() or os.geteuid() != 0:
        pytest.skip("Dovecot as an independent server needs dovecot-submissiond installed and root")
    ports = free_port(), free_port()
    with throwaway_folder("dovecot") as folder:
        (folder / "mail").mkdir()
        shutil.chown(folder / "mail", "dovenull", "dovenull")
        for name, text in {"users": f"{USER}:{PASSWORD}\n", **more}.items():
            (folder / name).write_text(text)
        settings = (CONFIGURATION + logins).format(
            folder=folder, chain=files.chain, key=files.key, starttls=ports[0], tls=ports[1], relay=relay
        )
        (folder / "dovecot.conf").write_text(settings)
        command: list[str | Path] = [program, "-F", "-c", folder / "dovecot.conf"]
        with running(Program("Dovecot", command, ports, folder / "log")):
            yield Dovecot(*ports, folder / "sasl")
