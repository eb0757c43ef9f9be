"""Local stand-ins for Entra, Graph and Google's token service, and accounts that reach them."""

from __future__ import annotations

import base64
import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from postier.drivers.base import Ports
from postier.drivers.microsoft import MicrosoftDriver, MicrosoftOptions
from postier.schemas.email import Mailbox
from tests.conftest import PATIENCE
from tests.drivers.oauth.web import Reply, Request, Web, json_reply

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
SECRET = "canary-client-secret"
MAILBOX = "office@contoso.example"
SENDER = Mailbox(MAILBOX, "The office")


class TokenService:
    """Answers token requests: first what stands in `answers`, then with a new token each time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.forms: list[dict[str, str]] = []
        self.asked_at: list[float] = []  # seconds since 1970, by form
        self.answers: list[Reply] = []
        self.always: Reply | None = None
        self.expires_in = 3_600
        self.more: dict[str, Any] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.discovery: Reply | None = None
        self.discoveries = 0
        self.devices: list[Reply] = []
        self.web = Web(context, self._answer)
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return self.web.url

    def _answer(self, request: Request) -> Reply:
        if request.path.endswith("/.well-known/openid-configuration"):
            self.discoveries += 1
            return self.discovery or json_reply(self.endpoints())
        if request.path.endswith("/devicecode"):
            return self.devices.pop(0)
        with self._guard:
            self.asked_at.append(time.time())
            self.forms.append(request.form)
            number = len(self.forms)
            scripted = self.answers.pop(0) if self.answers else self.always
        self.hold.wait(60)
        return scripted or self.token(number)

    def endpoints(self) -> dict[str, str]:
        base = f"{self.url}/{TENANT}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        }

    def token(self, number: int) -> Reply:
        answer = {
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "access_token": f"canary-token-{number}",
        }
        return json_reply(answer | self.more)


class Graph:
    """Takes mails whose token is not in `refused`; `answers` go first."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.requests: list[Request] = []
        self.mails: list[bytes] = []
        self.refused: set[str] = set()
        self.answers: list[Reply] = []
        self.always: Reply | None = None
        self.echoes = False
        self.web = Web(context, self._answer)

    @property
    def tokens(self) -> list[str]:
        return [request.headers["authorization"].removeprefix("Bearer ") for request in self.requests]

    def _answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if self.answers:
            return self.answers.pop(0)
        if self.always is not None:
            return self.always
        if self.echoes:
            return graph_error(403, "canary", f"{request.headers}")
        if request.headers["authorization"].removeprefix("Bearer ") in self.refused:
            return graph_error(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
        try:
            mail = base64.b64decode(request.body, validate=True)
        except ValueError:
            return graph_error(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
        self.mails.append(mail)
        return Reply(202, headers={"request-id": f"request-{len(self.requests)}"})


def graph_error(status: int, code: str, message: str = "no", **headers: str) -> Reply:
    return json_reply({"error": {"code": code, "message": message, "innerError": {}}}, status, **headers)


def entra_error(number: int, error: str, status: int = 400, description: str = "words", **more: Any) -> Reply:
    return json_reply(
        {
            "error": error,
            "error_description": f"AADSTS{number}: {description} Trace ID: 0 Correlation ID: 0",
            "error_codes": [number],
        }
        | more,
        status,
    )


class Microsoft:
    """An Entra and a Graph, and drivers for accounts there."""

    def __init__(self, context: ssl.SSLContext, ca_file: str) -> None:
        self.entra = TokenService(context)
        self.graph = Graph(context)
        self._ca_file = ca_file
        self._drivers: list[MicrosoftDriver] = []

    def settings(self, **changes: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "mailbox": MAILBOX,
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "authority": self.entra.url,
            "graph_url": self.graph.web.url,
            "ca_file": self._ca_file,
            "allow_hosts": ("localhost", "127.0.0.1"),
            "timeout_ms": int(PATIENCE * 1_000),
            "final_timeout": PATIENCE,
        }
        return {name: value for name, value in (settings | changes).items() if value is not None}

    def options(self, **changes: Any) -> MicrosoftOptions:
        return MicrosoftOptions.model_validate(self.settings(**changes))

    def driver(self, *, ports: Ports | None = None, **changes: Any) -> MicrosoftDriver:
        driver = MicrosoftDriver(self.options(**changes), sender=SENDER, ports=ports)
        self._drivers.append(driver)
        return driver

    @contextlib.contextmanager
    def running(self) -> Iterator[Microsoft]:
        with self.entra.web, self.graph.web:
            try:
                yield self
            finally:
                self.entra.hold.set()
                for driver in self._drivers:
                    driver.close()
