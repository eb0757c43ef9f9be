"""Set-up of a checkout: `.venv/` from the hashed lock, then postier itself in place. Standard library only.

Safe to call at any time and from several processes at once; a second call finds the stamp and returns at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tools.installers import SetupError, bootstrap_pip, say, watch

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "checkout.lock"
STAMP = VENV / "postier-stamp.json"
HALF = "installing"

__all__ = ["PYTHON", "ROOT", "SetupError", "say", "set_up", "watch"]


def set_up() -> None:
    """Make `.venv/` what the lock and pyproject.toml say. Raises SetupError with what to do about it."""
    if os.name != "posix":
        raise SetupError("postier runs on Linux and macOS; on Windows use WSL 2.")
    if stamp() == wanted():
        return
    with one_at_a_time():
        if stamp() != wanted():  # another set-up may have ended while we waited
            install()


def install() -> None:
    started = time.monotonic()
    if stamp().get("lock") == HALF or not usable():
        make_venv()
    done, goal = stamp(), wanted()
    if done.get("lock") != goal["lock"]:
        # a killed pip leaves packages that look whole to the next one: a set-up that finds this word starts .venv again
        write_stamp({"lock": HALF})
        install_lock()
        write_stamp({"lock": goal["lock"]})
    # no build isolation: the setuptools that builds is the hashed one
    editable: list[str | Path] = ["install", "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT]
    watch([PYTHON, "-m", "pip", *editable], "installing postier itself")
    write_stamp(goal)
    say(f"set up in {time.monotonic() - started:.0f} s")


def install_lock() -> None:
    if not has_pip():
        bootstrap_pip(PYTHON, LOCK)
    count = sum("==" in line for line in LOCK.read_text(encoding="utf-8").splitlines())
    watch(
        [PYTHON, "-m", "pip", "install", "--require-hashes", "--no-deps", "-r", LOCK],
        f"installing {count} locked packages into .venv (about a minute, once)",
        count,
    )


def make_venv() -> None:
    base = getattr(sys, "_base_executable", None) or sys.executable  # never a venv inside a venv
    if VENV.exists() or VENV.is_symlink():
        say(".venv is half made, or its Python is gone or too old: making it again")
        VENV.unlink() if VENV.is_symlink() else shutil.rmtree(VENV)
    # pip comes in a second step: many distributions ship a Python without ensurepip
    watch([base, "-m", "venv", "--without-pip", VENV], f"making .venv with Python {sys.version.split()[0]}")


def wanted() -> dict[str, str]:
    """What a finished set-up depends on; `project` covers the path too, for an editable install breaks when moved."""
    version = venv_version()
    return {
        "lock": digest(LOCK.read_bytes(), version.encode()),
        "project": digest((ROOT / "pyproject.toml").read_bytes(), str(ROOT).encode(), version.encode()),
    }


def stamp() -> dict[str, str]:
    """The stamp of the last finished set-up, or nothing when there was none or its Python has gone."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(STAMP.read_text(encoding="utf-8"))
        if isinstance(found, dict) and os.access(PYTHON, os.X_OK):
            return found
    return {}


def write_stamp(content: dict[str, str]) -> None:
    STAMP.write_text(json.dumps(content), encoding="utf-8")


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def venv_version() -> str:
    """The version that made `.venv`, read from its file: starting a Python only to ask would cost the second start."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (VENV / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() in ("version", "version_info"):  # venv's word, uv's and virtualenv's word
                return value.strip()
    return ""


def usable() -> bool:
    """Whether `.venv` has a working Python that is new enough."""
    probe = "import sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"
    return succeeds([PYTHON, "-c", probe])


def has_pip() -> bool:
    return succeeds([PYTHON, "-m", "pip", "--version"])


def succeeds(command: list[str | Path]) -> bool:
    import subprocess

    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0
    return False


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the checkout's set-up lock; the kernel drops it when its holder dies."""
    import fcntl

    path = ROOT / "build" / "setup.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is running: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
