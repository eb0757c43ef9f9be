"""The demo's folder: its lock, keys, passwords, accounts and the environment that points other commands at it."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postier.console.demo_certificate import write_private
from postier.console.demo_stories import BUSY_ONCE, HEALTHY, TENANT, THROTTLED, WRONG_PASSWORD
from postier.console.ledger_access import DEMO_FOLDER
from postier.schemas.errors import ConfigurationError
from postier.settings.seal import Sealer

ACCOUNTS = (HEALTHY, THROTTLED, WRONG_PASSWORD, BUSY_ONCE)
_SENDERS = {
    HEALTHY: ("office@school.example", "The school office", "en", ""),
    THROTTLED: ("nouvelles@school.example", "Les nouvelles de l'école", "fr", "limits = { per_second = 2 }\n"),
    WRONG_PASSWORD: ("library@school.example", "The school library", "en", ""),
    BUSY_ONCE: ("annexe@school.example", "L'annexe", "fr", ""),
}


class Folder:
    """Paths below the demo's folder, all absolute."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.env = self.root / "demo.env"
        self.accounts = self.root / "accounts.toml"
        self.mail = self.root / "mail"
        self.index = self.mail / "index.html"
        self.redis = self.root / "redis"
        self.tls = self.root / "tls"
        self.log = self.root / "workers.log"
        self.sample = self.root / "sample.jsonl"
        self.events = self.root / "events.jsonl"
        self.server_passwords = self.root / "passwords" / "server"
        self.account_passwords = self.root / "passwords" / "account"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other demos out of it. Raises ConfigurationError when one is running."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.root / "demo.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"--folder: cannot write to {self.root}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ConfigurationError(
                f"a demo is running in {self.root} already: end it with Ctrl-C, or give another --folder"
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def write_environment(self, redis_url: str, namespace: str) -> dict[str, str]:
        """The settings of everything in this demo, written for other commands too; the seal keys stay the same."""
        keys = os.environ.get("POSTIER_SEAL_KEYS") or self._known().get("POSTIER_SEAL_KEYS") or Sealer.new_key()
        settings = {
            "POSTIER_REDIS_URL": redis_url,
            "POSTIER_NAMESPACE": namespace,
            "POSTIER_SEAL_KEYS": keys,
            "POSTIER_ACCOUNTS_FILE": str(self.accounts),
            "POSTIER_DATA_DIR": str(self.root),
            DEMO_FOLDER: str(self.root),
        }
        lines = ["# The demo's settings: `set -a; . demo.env; set +a` points every postier command at it."]
        lines += [f"{name}={value}" for name, value in settings.items()]
        write_private(self.env, ("\n".join(lines) + "\n").encode())
        return settings

    def _known(self) -> dict[str, str]:
        try:
            lines = self.env.read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def write_accounts(self, port: int, authority: Path) -> None:
        """Fresh passwords on both sides, and the accounts file; one account does not know its password."""
        self.mail.mkdir(exist_ok=True)
        for side in (self.server_passwords, self.account_passwords):
            side.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ACCOUNTS:
            password = secrets.token_urlsafe(18)
            write_private(self.server_passwords / name, password.encode())
            mine = secrets.token_urlsafe(18) if name == WRONG_PASSWORD else password
            write_private(self.account_passwords / name, mine.encode())
        write_private(self.accounts, self._accounts_text(port, authority).encode())

    def _accounts_text(self, port: int, authority: Path) -> str:
        parts = ["# Written by `postier demo` at every start.\n"]
        for name, (address, shown, locale, limits) in _SENDERS.items():
            parts.append(
                f'[accounts.{name}]\ntenant = "{TENANT}"\ndriver = "smtp"\nlocale = "{locale}"\n'
                f'sender = {{ address = "{address}", name = "{shown}" }}\n{limits}'
                f'brand = {{ name = "School of the Elms", colour = "#2f5d50" }}\n'
                f'[accounts.{name}.options]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "starttls"\n'
                f'username = "{name}"\npassword = "file:{self.account_passwords / name}"\n'
                f'ca_file = "{authority}"\nallow_hosts = ["127.0.0.1"]\n'
            )
        parts.append(
            f'[tenants.{TENANT}]\nallowed_hosts = ["school.example"]\ndefault_account = "{HEALTHY}"\n'
            f'[tenants.{TENANT}.forms.contact]\nrecipients = ["office@school.example"]\nlabel = "Contact"\n'
            f'[tenants.{TENANT}.forms.inscription]\nrecipients = ["inscriptions@school.example"]\n'
            f'label = "Inscription"\naccount = "{THROTTLED}"\n'
        )
        return "\n".join(parts)
