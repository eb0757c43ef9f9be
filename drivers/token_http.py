"""The HTTP client that msal and our own token requests use: one host, ten seconds, 64 kB, no redirects, no echoes.

It raises our errors instead of answering when the service is away, so that no library logs, retries or remembers it.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from postier.drivers.https_wire import Answer, Limits, NoAnswer, NotSent, Resolve, exchange, system_resolver
from postier.drivers.tokens import REQUEST_OCTETS, REQUEST_SECONDS, oauth_unavailable
from postier.schemas.errors import AccountError

_SECRET_FIELDS = ("client_secret", "client_assertion", "assertion", "refresh_token", "device_code", "code")


class TokenHttp:
    """`begin` opens the ten seconds of one token; every request until the next `begin` shares them.

    `origin` is the only scheme, host and port that requests may go to, None where the library knows better (managed
    identities, whose address the machine dictates). The client is not for several threads at once.
    """

    def __init__(self, origin: str | None, *, resolve: Resolve, context: ssl.SSLContext | None) -> None:
        self._origin = urlsplit(origin)[:2] if origin else None
        self._resolve = resolve
        self._context = context
        self._ends = 0.0
        self.requests = 0

    def begin(self) -> None:
        """Start the clock anew."""
        self._ends = time.monotonic() + REQUEST_SECONDS

    def get(
        self, url: str, params: Mapping[str, str] | None = None, headers: Mapping[str, Any] | None = None, **_: Any
    ) -> Any:
        """A GET as `requests` would answer it. Raises TemporaryError or AccountError."""
        return self._request("GET", url, params, headers, None)

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> Any:
        """A form POST as `requests` would answer it. Raises TemporaryError or AccountError."""
        return self._request("POST", url, params, headers, data or {})

    def close(self) -> None:
        """Nothing stays open."""

    def _request(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, Any] | None,
        data: Mapping[str, Any] | None,
    ) -> Any:
        if self._origin is not None and urlsplit(url)[:2] != self._origin:
            raise oauth_unavailable("the authority sends its tokens' requests to another host, which is not followed")
        if params:
            url = f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"
        sent = {name: str(value) for name, value in (headers or {}).items() if value is not None}
        body = b""
        if data is not None:
            body = urlencode({name: value for name, value in data.items() if value is not None}).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        answer = self._ask(method, url, sent, body)
        text = _checked(answer)
        if answer.status >= 400:
            text = _without_echoes(text, data or {})
        return SimpleNamespace(
            status_code=answer.status, text=text, headers=dict(answer.headers), raise_for_status=lambda: None
        )

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.requests += 1
        limits = Limits(seconds=max(self._ends - time.monotonic(), 0.0), octets=REQUEST_OCTETS)
        try:
            return exchange(
                method, url, headers=headers, body=body, limits=limits, resolve=self._resolve, context=self._context
            )
        except NotSent as error:
            if error.certificate:
                raise AccountError(str(error), stage="auth", cause=error.certificate) from None
            raise oauth_unavailable(str(error)) from None
        except NoAnswer as error:
            raise oauth_unavailable(str(error)) from None


def guarded(known: frozenset[str], guard: Callable[[str, int], list[tuple[str, int]]]) -> Resolve:
    """A resolver for hosts that are fixed in our code, and for all others the egress guard."""

    def resolve(host: str, port: int) -> list[tuple[str, int]]:
        return system_resolver(host, port) if host in known and port == 443 else guard(host, port)

    return resolve


def _checked(answer: Answer) -> str:
    """The answer's text when it is one to work with: whole, and a JSON object where it promises a token."""
    if answer.status == 429 or answer.status >= 500:
        raise oauth_unavailable(
            f"the token service answered {answer.status}",
            retry_after=answer.retry_after,
            code=answer.status,
            limited=answer.status == 429,
        )
    if 300 <= answer.status < 400:
        raise oauth_unavailable("the token service answered with a redirect, which is not followed", code=answer.status)
    if not answer.whole:
        raise oauth_unavailable("the token service's answer is cut or longer than 64 kB", code=answer.status)
    text = answer.body.decode("utf-8", "replace")
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object and answer.status != 401:  # Azure Arc challenges with a bare 401
        raise oauth_unavailable("the token service's answer is not a JSON object", code=answer.status)
    return text


def _without_echoes(text: str, data: Mapping[str, Any]) -> str:
    """A refusal that repeats what was sent to it must not bring it into a log."""
    for name in _SECRET_FIELDS:
        value = str(data.get(name) or "")
        if len(value) > 3:
            text = text.replace(value, "***").replace(json.dumps(value)[1:-1], "***")
    return text
