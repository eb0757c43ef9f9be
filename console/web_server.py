"""What our small web servers have in common: few requests at once, ten seconds for each, and an end by signal."""

from __future__ import annotations

import io
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from postier.console.output import complain, say_json
from postier.schemas.errors import ConfigurationError

SECONDS = 10.0  # for one request, however slowly it comes
TOGETHER = 32


class SmallServer(ThreadingMixIn, HTTPServer):
    """A thread a request, of few at once. `port` 0 takes a free one, `server_address` tells which."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, host: str, port: int) -> None:
        self._places = threading.BoundedSemaphore(TOGETHER)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the request, or none at all when too many are under way."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As ever, then the place is free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a traceback could show a token."""


class SmallHandler(BaseHTTPRequestHandler):
    """Reads one request for so long and no longer, and keeps quiet about it."""

    server_version = "postier"
    sys_version = ""
    timeout = SECONDS

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Until(self.connection, time.monotonic() + SECONDS))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses of pages may carry tokens."""


class _Until(io.RawIOBase):
    """What a socket sends, up to one moment for everything."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


def serve_until_stopped(
    make: Callable[[], SmallServer], path: str, *, host: str, port: int, json_output: bool
) -> None:  # fmt: skip
    """Serve what `make` listens with until SIGTERM or SIGINT, and say where. Raises ConfigurationError."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        server = make()
    except (OSError, UnicodeError) as error:  # a label of a name that is too long is no text for DNS
        why = (isinstance(error, OSError) and error.strerror) or "no such address"
        raise ConfigurationError(f"--host {host} --port {port}: cannot listen there: {why}") from None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    port = server.server_address[1]
    if json_output:
        say_json({"serving": path, "host": host, "port": port})
        sys.stdout.flush()  # the next line never comes
    else:
        complain(f"postier: serving {path} on {host}:{port}")
    stopping.wait()
    server.shutdown()
    server.server_close()
