"""A provider's API on a local port, over TLS: real sockets, every request kept, every behaviour on demand."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from postier.drivers.base import Ports, Result
from postier.drivers.http_api import ApiDriver
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import DeliveryError
from postier.schemas.receipt import Receipt
from tests.conftest import PATIENCE

SENDER = Mailbox("office@example.org", "The office")
SECRET = "canary-secret-0815"


@functools.cache
def authority() -> tuple[str, ssl.SSLContext, ssl.SSLContext]:
    """A throw-away CA's file, a server's TLS for localhost, and one for another name."""
    ca = trustme.CA()
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    path = Path(folder.name) / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    contexts = []
    for name in ("localhost", "elsewhere.example"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(context)
        contexts.append(context)
    return str(path), contexts[0], contexts[1]


_kept: list[Any] = []


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: object = b""  # octets as they are, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def octets(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Act = Callable[["Handler", Request], None]
Script = Callable[[Request], Reply | Act]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeApi

    def answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        self.server.requests.append(request)
        act = self.server.script(request)
        if isinstance(act, Reply):
            self.reply(act)
        else:
            act(self, request)

    do_GET = do_POST = answer  # noqa: N815

    def reply(self, reply: Reply) -> None:
        octets = reply.octets()
        self.send_response(reply.status)
        kind = "text/plain" if isinstance(reply.body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def raw(self, octets: bytes) -> None:
        self.wfile.write(octets)
        self.wfile.flush()

    def leave(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FakeApi(ThreadingHTTPServer):
    """Plays `script` to every request. A context manager; leaves nothing running.

    `before_tls` closes each connection before the handshake.
    """

    daemon_threads = False
    request_queue_size = 64

    def __init__(
        self, script: Script, *, context: ssl.SSLContext | None = None, clear: bool = False, before_tls: bool = False
    ) -> None:
        self.script = script
        self.clear = clear
        self.context = context or authority()[1]
        self.before_tls = before_tls
        self.requests: list[Request] = []
        self.connections = 0
        self.stopping = threading.Event()
        self.open_sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self.clear else f"https://localhost:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """What every driver needs to reach this server."""
        return {
            "base_url": self.url,
            "allow_hosts": ("localhost", "127.0.0.1"),
            "ca_file": authority()[0],
            "timeout": PATIENCE,
        }

    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        if self.before_tls:
            return
        request.settimeout(60)
        with contextlib.suppress(OSError):
            sock = request if self.clear else self.context.wrap_socket(request, server_side=True)
            self.open_sockets.add(sock)
            try:
                super().finish_request(sock, client_address)
            finally:
                self.open_sockets.discard(sock)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients leave when they please

    def __enter__(self) -> FakeApi:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        self.shutdown()
        for sock in list(self.open_sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join(PATIENCE)


def always(reply: Reply | Act) -> Script:
    return lambda request: reply


def silence(handler: Handler, request: Request) -> None:
    handler.server.stopping.wait(60)
    handler.leave()


def hang_up(handler: Handler, request: Request) -> None:
    handler.leave()


def mail(*recipients: str, **changes: Any) -> Email:
    """A mail with everything a driver may have to carry; several recipients make a packet."""
    people = recipients or ("someone@example.com",)
    values: dict[str, Any] = {
        "delivery_id": "d-0001",
        "message_id": "<d-0001@example.org>",
        "envelope_from": SENDER.address,
        "recipients": people,
        "sender": SENDER,
        "to": (Mailbox(people[0], "Zoë, Example"),) if len(people) == 1 else (SENDER,),
        "subject": "Été: your link",
        "text": "Hello.\n",
        "html": "<p>Hello.</p>",
        "mime": b"Subject: Sample\r\nMessage-ID: <d-0001@example.org>\r\n\r\nHello.\r\n",
        "reply_to": Mailbox("help@example.org", "Help"),
        "headers": (("Auto-Submitted", "auto-generated"), ("List-Unsubscribe", "<https://example.org/u/1>")),
    }
    return Email(**values | changes)


def outcome(driver: ApiDriver[Any], email: Email | None = None) -> Result:
    """What one attempt ends with; the driver is closed."""
    try:
        ((_, result),) = driver.converse((email or mail(),))
        return result
    finally:
        driver.close()


def receipt(driver: ApiDriver[Any], email: Email | None = None) -> Receipt:
    result = outcome(driver, email)
    assert isinstance(result, Receipt), result
    return result


def failure(driver: ApiDriver[Any], email: Email | None = None) -> DeliveryError:
    result = outcome(driver, email)
    assert isinstance(result, DeliveryError), result
    return result


def made(driver: type[ApiDriver[Any]], fake: FakeApi, *, ports: Ports | None = None, **options: Any) -> ApiDriver[Any]:
    return driver(driver.Options.model_validate(fake.options | options), sender=SENDER, ports=ports)
