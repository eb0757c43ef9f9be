"""T8: an address that only looks like another is shown for what it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postier.ledger.embedded import EmbeddedServer

ACCOUNTS = """
default_account = "{name}"
[accounts.{name}]
driver = "null"
sender = {{ address = "post@{domain}" }}
[tenants.school]
allowed_hosts = ["school.example"]
"""


def shown(valkey: EmbeddedServer, namespace: str, seal_key: str, folder: Path, domain: str, *words: str) -> str:
    (folder / "accounts.toml").write_text(ACCOUNTS.format(name="main", domain=domain), "utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}
    env |= {
        "POSTIER_REDIS_URL": valkey.url, "POSTIER_NAMESPACE": namespace, "POSTIER_SEAL_KEYS": seal_key,
        "POSTIER_ACCOUNTS_FILE": str(folder / "accounts.toml"), "POSTIER_DATA_DIR": str(folder),
    }  # fmt: skip
    command = [sys.executable, "-m", "postier.console", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("domain", "ascii_form"),
    [
        ("exаmple.com", "xn--exmple-4nf.com"),  # Cyrillic a
        ("gооgle.example", "xn--ggle-55da.example"),  # Cyrillic o, twice
    ],
)
def test_the_console_shows_punycode(
    valkey: EmbeddedServer, namespace: str, seal_key: str, tmp_path: Path, domain: str, ascii_form: str
) -> None:
    table = shown(valkey, namespace, seal_key, tmp_path, domain, "accounts", "list")

    assert f"post@{ascii_form}" in table
    assert domain not in table
