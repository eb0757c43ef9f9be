"""A command that looks starts fast: what only other commands need is not even read from the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.ledger.kit import Ledger

# Of a tenth of a second each, or more.
HEAVY = (
    "structlog",
    "email_validator",
    "jinja2",
    "httpx2",
    "dramatiq",
    "msal",
    "rich.console",
    "dns",
    "prometheus_client",
)
OURS = ("postier.schemas.account", "postier.schemas.events", "postier.settings.seal", "postier.drivers.base")
LOOK = """
import json, sys
from postier.console.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize("command", [["status", "ID"], ["failed"], ["failed", "list"], ["deliveries", "list"]])
def test_a_command_that_looks_loads_no_models_ciphers_drivers_or_workers(ledger: Ledger, command: list[str]) -> None:
    (one,) = ledger.publish().deliveries
    env = {**os.environ, "POSTIER_REDIS_URL": ledger.store.url, "POSTIER_NAMESPACE": ledger.store.namespace}

    done = subprocess.run(
        [sys.executable, "-c", LOOK, *(one if word == "ID" else word for word in command)],
        env=env, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip

    code, loaded = json.loads(done.stderr)
    assert code == 0, done.stdout
    assert done.stdout
    assert not [name for name in (*HEAVY, *OURS) if name in loaded]
