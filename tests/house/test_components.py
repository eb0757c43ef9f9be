"""The component list of a release, from the lock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from tests.house.test_lock import PROJECT, entries, versions

ROOT = Path(__file__).parents[2]


def made() -> str:
    command = [sys.executable, str(ROOT / "tools" / "components.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def text() -> str:
    return made()


def test_the_list_is_valid_cyclonedx(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_list_has_every_locked_package_of_the_image_with_its_version_and_hashes(text: str) -> None:
    listed = {canonicalize_name(one["name"]): one for one in json.loads(text)["components"]}

    assert {name: one["version"] for name, one in listed.items()} == versions("image.lock")
    for entry in entries("image.lock"):
        one = listed[canonicalize_name(entry.partition("==")[0])]
        assert one["purl"] == f"pkg:pypi/{canonicalize_name(one['name'])}@{one['version']}"
        assert {digest["content"] for digest in one["hashes"]} == {
            part.partition("sha256:")[2] for part in entry.split() if part.startswith("--hash=")
        }


def test_the_list_says_who_needs_whom_and_under_which_licence(text: str) -> None:
    told = json.loads(text)
    needs = {row["ref"]: row.get("dependsOn", []) for row in told["dependencies"]}

    assert told["metadata"]["component"]["version"] == PROJECT["version"]
    assert any(ref.startswith("dramatiq@") for ref in needs["postier"])
    assert any(ref.startswith("prometheus-client@") for ref in needs["postier"])
    (msal,) = [ref for ref in needs if ref.startswith("msal@")]
    assert any(ref.startswith("cryptography@") for ref in needs[msal])
    # A package for another system is locked, and not installed here to be asked.
    assert sum(not one.get("licenses") for one in told["components"]) <= 5


def test_the_same_lock_gives_the_same_list(text: str) -> None:
    assert made() == text
