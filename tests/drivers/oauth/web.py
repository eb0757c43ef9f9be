"""A small HTTPS server on a local port that answers as it is told, also wrongly, slowly or not at all."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.conftest import PATIENCE


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(frozen=True)
class Reply:
    """`raw` writes to the connection itself, in place of the rest."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Callable[[Web, BaseHTTPRequestHandler], None] | None = None


def json_reply(payload: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(payload).encode(), {"Content-Type": "application/json"} | named)


def silence() -> Reply:
    """Never answers; ends with the server."""

    def wait(web: Web, handler: BaseHTTPRequestHandler) -> None:
        web.ended.wait(60)

    return Reply(raw=wait)


def cut() -> Reply:
    """Closes without a word."""
    return Reply(raw=lambda web, handler: None)


def half(payload: Any) -> Reply:
    """Promises a body and sends half of it."""
    octets = json.dumps(payload).encode()

    def write(web: Web, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(octets) + octets[: len(octets) // 2])

    return Reply(raw=write)


def endless(chunk: bytes = b" " * 4096, pause: float = 0.0) -> Reply:
    """Sends for as long as somebody reads."""

    def write(web: Web, handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n{")
            for _ in range(1_000_000):
                if web.ended.wait(pause):
                    return
                handler.wfile.write(chunk)

    return Reply(raw=write)


class Web:
    """Serves `answer(request)` over TLS, or in clear without a context. A context manager; leaves nothing running."""

    def __init__(self, context: ssl.SSLContext | None, answer: Callable[[Request], Reply]) -> None:
        self.ended = threading.Event()
        self.connections = 0
        self.accepting = True
        self._socks: list[socket.socket] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                web.connections += 1
                web._socks.append(self.request)
                if context is not None:
                    self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle()

            def finish(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    super().finish()
                self.request.close()

            def log_message(self, *_: object) -> None:
                """The tests look at what came in, nobody reads a log."""

            def do_POST(self) -> None:
                self._serve()

            def do_GET(self) -> None:
                self._serve()

            def _serve(self) -> None:
                self.close_connection = True
                length = int(self.headers.get("Content-Length") or 0)
                octets = self.rfile.read(length)
                if len(octets) < length:
                    return
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = answer(Request(self.command, parts.path, query, headers, octets))
                if reply.raw is not None:
                    reply.raw(web, self)
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that turns away at the handshake is part of some tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if context else 'http'}://localhost:{self.port}"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._server.server_close()

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self._server.socket.accept()
            except OSError:
                return
            if self.accepting:
                self._server.process_request(sock, address)
            else:
                self.connections += 1
                sock.close()
