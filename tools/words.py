"""What each word of `run.py` does, once the Python is new enough."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from tools.checkout import PYTHON, ROOT, SetupError, say, set_up

DEMO_ENVIRONMENT = ROOT / ".postier" / "demo.env"  # written by the demo, KEY=VALUE lines


def run(arguments: list[str]) -> int:
    """Set up, then become the command asked for. Returns an exit code only when nothing was left to run."""
    word, rest = ("demo", arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    try:
        if word == "lock":
            from tools.lock import lock

            return lock(rest)
        set_up()
        if word == "setup":
            return 0
        if word == "check":
            from tools.checks import check

            return check()
        if word == "test":
            test(rest)
        if word in ("components", "release"):
            become(str(ROOT / "tools" / f"{word}.py"), *rest)
        if word == "demo":
            os.chdir(ROOT)
            become("-P", "-m", "postier.console", "demo", *rest)
        load_demo_environment()
        become("-P", "-m", "postier.console", word, *rest)
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; the next start finishes the set-up")
        return 128 + signal.SIGINT


def test(arguments: list[str]) -> NoReturn:
    """Run pytest in three processes, for two cores, as tests often wait, in random order; or as the arguments say."""
    from tools.servers import provide

    provide()
    os.chdir(ROOT)
    spread = [] if single(arguments) else ["-n", "3", "--dist", "loadgroup"]
    become("-m", "pytest", *spread, *arguments)


def single(arguments: list[str]) -> bool:
    """Whether the arguments already choose how tests are spread, or need the terminal to themselves."""
    return any(argument.startswith(("-n", "--numprocesses", "--dist", "--pdb", "-s", "--co")) for argument in arguments)


def load_demo_environment() -> None:
    """Point the command at the demo, unless the caller has a Redis of their own."""
    if os.environ.get("POSTIER_REDIS_URL") or not DEMO_ENVIRONMENT.is_file():
        return
    for line in DEMO_ENVIRONMENT.read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            os.environ.setdefault(key.strip(), value.strip())


def become(*arguments: str) -> NoReturn:
    """Replace this process, so that signals, the terminal and the exit code belong to the command."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(PYTHON, [str(PYTHON), *arguments])
