"""How commands reach the ledger: settings from the environment, one connection, closed at the end."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postier.ledger.names import Names, told_names
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from postier.schemas.errors import PostierError
from postier.settings.config import Settings, load_settings

if TYPE_CHECKING:  # half a command's start, and few commands need it
    from postier.ledger.account_store import AccountStore
    from postier.ledger.manage import Management
    from postier.ledger.merged import Merged
    from postier.schemas.account import Registry

DEMO_FOLDER = "POSTIER_DEMO_FOLDER"  # in the demo's environment file


@dataclass(frozen=True, slots=True)
class Ledger:
    """An open ledger with the questions and changes commands have for it."""

    settings: Settings
    store: Store
    queries: Queries

    def files(self) -> Registry:
        """The accounts file when one is set, else what workers told the ledger of theirs (without options)."""
        from postier.ledger.merged import published_files

        return self.settings.registry() if self.settings.accounts_file else published_files(self.store)

    def registry(self) -> Registry:
        """All accounts and tenants: those of files and those kept in the ledger."""
        from postier.ledger.merged import merged_registry

        return merged_registry(self.files(), self.store)

    def names(self) -> Names:
        """The names alone, as the ledger was told of them: far cheaper than the registry."""
        told = told_names(self.store)
        if told is not None:
            return told
        known = self.registry()
        drivers = {name: account.driver for name, account in known.accounts.items()}
        return Names(tuple(sorted(known.tenants)), drivers)

    def accounts(self) -> AccountStore:
        """The accounts and tenants kept in the ledger, to be changed in the name of whoever runs the command."""
        from postier.ledger.account_store import AccountStore

        return AccountStore(self.store, self.files(), who=whoami(), sealer=self.settings.sealer())

    def tell(self, merged: Merged) -> None:
        """Let publishers know changed accounts at once; workers look for themselves every three seconds."""
        from postier.ledger.accounts import configure

        configure(self.store, merged.registry, files=self.files())

    def manage(self) -> Management:
        """Changes in the name of whoever runs the command."""
        from postier.ledger.manage import Management

        return Management(self.store, whoami())


@contextmanager
def ledger(settings: Settings | None = None) -> Iterator[Ledger]:
    """The ledger of the settings. Raises ConfigurationError; its use raises LedgerUnavailable."""
    settings = settings or load_settings()
    store = Store(settings.redis_url, namespace=settings.namespace, timeout=settings.redis_timeout)
    try:
        yield Ledger(settings, store, Queries(store))
    finally:
        store.close()


def whoami() -> str:
    """The name written into timelines."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return f"uid {os.getuid()}"


def redis_address(url: str | None = None) -> str:
    """Where Redis is, without user and password."""
    if url is None:
        try:
            url = load_settings().redis_url
        except PostierError:
            return "POSTIER_REDIS_URL"
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:  # its words may repeat the password
        return "POSTIER_REDIS_URL"
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    # Without a host the path may be the rest of a password with a / in it.
    return f"{parts.hostname or 'localhost'}:{port}"


def demo_hint() -> str:
    """What to do about a ledger that does not answer."""
    if os.environ.get(DEMO_FOLDER):
        return "The demo is not running: start it with `python3 run.py` and leave it open."
    return "Check POSTIER_REDIS_URL and that the server runs; `postier doctor` looks closer."
