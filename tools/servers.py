"""The real servers some tests talk to, from the system's packages. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.installers import CommandFailed, say, watch

# package, the commands one of which must be there, what stays untested without it
SERVERS = (
    ("redis-server", ("redis-server", "valkey-server"), "tests on a system redis-server"),
    ("dovecot-submissiond", ("dovecot",), "tests that log in to Dovecot with XOAUTH2"),
    ("postfix", ("postfix",), "tests that send through a private Postfix"),
    ("chromium", ("chromium", "chromium-browser", "google-chrome"), "tests that look at pages in a browser"),
)
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])
POLICY = Path("/usr/sbin/policy-rc.d")


def provide() -> None:
    """Install what is missing when we may, and say aloud what the tests will skip. Never raises."""
    lacking = missing()
    if lacking and may_install():
        for package, _ in lacking:
            try:
                apt_install(package)
            except CommandFailed as error:
                say(str(error))
        lacking = missing()
    for package, loss in lacking:
        say(f"no {package} on this machine: {loss} will be skipped")


def missing() -> list[tuple[str, str]]:
    return [
        (package, loss)
        for package, commands, loss in SERVERS
        if not any(shutil.which(command, path=SYSTEM_PATH) for command in commands)
    ]


def may_install() -> bool:
    root = os.name == "posix" and os.geteuid() == 0
    return bool(root and shutil.which("apt-get") and not os.environ.get("POSTIER_NO_APT"))


def apt_install(*packages: str) -> None:
    """Install Debian packages without starting their services or removing others. Raises CommandFailed."""
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
    install = [*quiet, "install", "-y", "-q", "--no-remove", "--no-install-recommends", *packages]
    with services_kept_down():
        subprocess.run([*quiet, "-q", "update"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
        watch([*install], f"installing {', '.join(packages)} with apt-get (services stay down)")


@contextlib.contextmanager
def services_kept_down() -> Iterator[None]:
    """Answer 101, forbidden (invoke-rc.d(8)), to every package that wants to start its service; then undo."""
    before = POLICY.read_bytes() if POLICY.exists() else None
    mode = POLICY.stat().st_mode if before is not None else 0
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            POLICY.unlink(missing_ok=True)
        else:
            POLICY.write_bytes(before)
            POLICY.chmod(mode)
