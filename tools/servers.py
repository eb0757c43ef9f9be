"""The real servers some tests talk to, from the system's packages. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.installers import CommandFailed, say, watch

ROOT = Path(__file__).resolve().parent.parent

# package, the commands one of which must be there, what stays untested without it
SERVERS = (
    ("redis-server", ("redis-server", "valkey-server"), "tests on a system redis-server"),
    ("dovecot-submissiond", ("dovecot",), "tests that log in to Dovecot or, by it, to Postfix"),
    ("postfix", ("postfix",), "tests that send through a private Postfix"),
    ("npm", ("npm",), "tests that send to npm's smtp-server"),
    ("chromium", ("chromium", "chromium-browser", "google-chrome"), "tests that look at pages in a browser"),
)
# Debian has one mail server at a time: a second one is unpacked here, `exim4` and its `lib`, and never installed
EXIM = ROOT / "build" / "servers" / "exim4"
EXIM_PACKAGES = ("exim4-daemon-light", "libnss-wrapper")
APT_GET = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
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
    if not EXIM.is_dir() and may_install():
        try:
            unpack_exim()
        except (CommandFailed, OSError) as error:
            say(str(error))
    if not EXIM.is_dir():
        lacking.append((EXIM_PACKAGES[0], "tests that send through a private Exim"))
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
    install = [*APT_GET, "install", "-y", "-q", "--no-remove", "--no-install-recommends", *packages]
    with services_kept_down():
        _said(*APT_GET, "-q", "update")
        watch(install, f"installing {', '.join(packages)} with apt-get (services stay down)")


def unpack_exim() -> None:
    """Fetch Exim and the libraries this machine lacks, unpack them below `build/`. Raises CommandFailed, OSError."""
    EXIM.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=EXIM.parent) as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt fetches as a user of its own
        _said(*APT_GET, "-q", "update")
        watch(
            [*APT_GET, "-q", "download", *EXIM_PACKAGES, *missing_libraries(EXIM_PACKAGES[0])],
            f"fetching {EXIM_PACKAGES[0]} with apt-get (unpacked below build/, not installed)",
            folder=folder,
        )
        for package in folder.glob("*.deb"):
            watch(["dpkg-deb", "-x", package, folder / "tree"], f"unpacking {package.name.split('_')[0]}")
        made = folder / "exim4"
        (made / "lib").mkdir(parents=True)
        for library in (folder / "tree").glob("**/*.so*"):
            if library.is_file():
                shutil.copyfile(library, made / "lib" / library.name)
        shutil.copyfile(folder / "tree" / "usr" / "sbin" / "exim4", made / "exim4")
        (made / "exim4").chmod(0o755)  # and no longer setuid
        with contextlib.suppress(OSError):  # another run was faster
            made.rename(EXIM)


def missing_libraries(package: str) -> list[str]:
    """The libraries an install of the package would bring along, by apt's own reckoning."""
    needs = _said("apt-cache", "depends", package)
    libraries = [words[-1] for line in needs if (words := line.split()) and words[-1].startswith("lib")]
    planned = _said(*APT_GET, "-s", "install", "--no-install-recommends", *libraries)
    return [words[1] for line in planned if (words := line.split())[:1] == ["Inst"] and not words[2].startswith("[")]


def _said(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


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
