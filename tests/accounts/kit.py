"""What the tests of accounts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postier.ledger.account_store import AccountStore
from postier.schemas.account import Account, Tenant

SECRET = "canary-sesame-0815"

MakeBook = Callable[..., AccountStore]


def account(name: str = "office", **more: Any) -> Account:
    """An account at a mail server of the world."""
    row: dict[str, Any] = {
        "name": name,
        "driver": "smtp",
        "sender": {"address": f"{name}@school.example"},
        "options": {"host": "mail.school.example", "username": name, "password": SECRET},
    }
    return Account.model_validate(row | more)


def tenant(name: str = "school", **more: Any) -> Tenant:
    """A tenant."""
    return Tenant.model_validate({"name": name, "allowed_hosts": ["school.example"], **more})


@dataclass(frozen=True)
class Mail:
    """A mail server on the loopback: its port, the authority of its certificate, and where its mail lands."""

    port: int
    authority: str
    folder: Path

    def flags(self, *more: str) -> tuple[str, ...]:
        """What an account that may send there is added with, but for its password."""
        return (
            "--driver", "smtp", "--sender", "The Office <office@school.example>", "-o", "host=127.0.0.1",
            "-o", f"port={self.port}", "-o", "username=office", "-o", f"ca_file={self.authority}", *more,
        )  # fmt: skip
