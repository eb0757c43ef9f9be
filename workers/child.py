"""One supervised worker process: `postier.workers.main`, and it ends when its supervisor does.

Its standard input is a pipe that nobody writes to: end of file means that the supervisor is gone, on every system.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from postier.schemas.errors import ConfigurationError
from postier.settings.config import load_settings
from postier.workers.main import run

WRONG_SET_UP = 2
GRACE = 5.0  # seconds beyond the drain time


def _end_with_supervisor(seconds: float) -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(1)


def main() -> int:
    """Work; returns the exit code, 2 for a wrong set-up."""
    try:
        settings = load_settings()
        watch = threading.Thread(target=_end_with_supervisor, args=(settings.drain_seconds + GRACE,), daemon=True)
        watch.start()
        return run(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"postier: {error}\n")
        return WRONG_SET_UP


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a hanging conversation must not keep the process
