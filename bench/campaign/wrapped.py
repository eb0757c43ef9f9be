"""A worker process with trace points: the product's own code has none.

    POSTIER_FAULT=<point>:kill  POSTIER_FAULT_AT=<nth time>  POSTIER_FAULT_ID=<delivery id>  python wrapped.py

Points: `before_mark` (nothing was sent), `after_mark` (`sending` is written, no octet of the body left), `after_250`
(the provider took it, nobody wrote that down), `after_receipt` (only the receipt file knows). `render:raise` makes
rendering fail, `narrow:send` gives SMTP connections a small send buffer, as on a far and slow network.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from postier.drivers import smtp_opening
from postier.workers import main
from postier.workers.conversation import Conversation
from postier.workers.deliver import Deliverer
from postier.workers.receipts import ReceiptFile
from postier.workers.render import Renderer

POINT, _, WHAT = os.environ.get("POSTIER_FAULT", "").partition(":")
AT = int(os.environ.get("POSTIER_FAULT_AT", "1"))
ID = os.environ.get("POSTIER_FAULT_ID", "")
_times = itertools.count(1)


def here(point: str, *ids: str) -> None:
    """Die when this is the point, the time and the delivery."""
    if point == POINT and (not ID or ID in ids) and next(_times) == AT:
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, name: str, before: str, after: str, ids: Callable[..., tuple[str, ...]]) -> None:
    """Put trace points before and after a method."""
    original: Any = getattr(owner, name)

    def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
        here(before, *ids(*args))
        result = original(self, *args, **kwargs)
        here(after, *ids(*args))
        return result

    setattr(owner, name, traced)


def install() -> None:
    """Patch the worker's classes."""
    around(Conversation, "hand_over", "before_mark", "after_mark", lambda mail: tuple(one.id for one in mail))
    around(ReceiptFile, "write", "after_250", "after_receipt", lambda entry: (str(entry[1]),))
    if POINT == "narrow":
        connect = smtp_opening.connect

        def narrow(*args: Any, **kwargs: Any) -> Any:
            session = connect(*args, **kwargs)
            session.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            return session

        smtp_opening.connect = narrow
    if POINT == "render":

        def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise KeyError("a template of somebody")

        Renderer.render = fail  # type: ignore[method-assign]
    assert Deliverer


if __name__ == "__main__":
    install()
    code = main.run()
    sys.stderr.flush()
    os._exit(code)
