"""Logins at Microsoft Entra, by msal: as an app, as a managed identity, or as a person by device code.

msal speaks the protocol; what it lacks is around it: the store, the single flight and early renewal are SharedTokens',
time and size limits TokenHttp's. msal's own memory of refusals is emptied before each use, or a mended account would
look broken for a minute; its instance discovery is off, because the authorities are fixed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from postier.drivers.base import TokenStore
from postier.drivers.https_wire import Resolve, system_resolver
from postier.drivers.microsoft_errors import token_refusal
from postier.drivers.microsoft_options import MicrosoftOptions
from postier.drivers.smtp_words import safe_words
from postier.drivers.token_http import TokenHttp
from postier.drivers.tokens import Grant, SharedTokens, login_refused, oauth_unavailable
from postier.schemas.errors import DeliveryError

KEEP_LOGIN = 90 * 86_400.0  # seconds: how long Entra lets a refresh token lie idle
_LONGEST_TOKEN = 2 * 86_400.0
_PAGE = re.compile(
    r"https://[A-Za-z0-9.-]{1,200}(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]{0,200})?"
)  # shown to a person as it is
_PENDING = frozenset({"authorization_pending", "slow_down"})


def identity_key(options: MicrosoftOptions) -> str:
    """The name of the identity's entry in the token store.

    The proof is part of it: who knows an app's ids but not its secret must not get at its token, and a new secret must
    show at once whether it works.
    """
    proof = [
        secret.get_secret_value() if secret else ""
        for secret in (options.client_secret, options.private_key, options.private_key_password)
    ]
    account = options.mailbox.lower() if options.delegated else ""
    parts = [
        options.cloud.authority,
        options.tenant_id,
        options.client_id or "",
        options.managed_identity or "",
        options.scope,
        account,
        *proof,
    ]
    return "microsoft/" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class EntraLogin:
    """Asks Entra for tokens of one identity. Safe for threads: one request at a time."""

    def __init__(self, options: MicrosoftOptions, *, resolve: Resolve, context: Callable[[], ssl.SSLContext]) -> None:
        self._options = options
        self._resolve = resolve
        self._context = context
        self._lock = threading.Lock()
        self._memory: dict[str, Any] = {}
        self._http: TokenHttp | None = None
        self._app: Any = None
        self._cache: Any = None

    def shared(self, store: TokenStore) -> SharedTokens:
        """The identity's tokens over a store."""
        keep = KEEP_LOGIN if self._options.delegated else None
        return SharedTokens(identity_key(self._options), store, self.fetch, keep=keep)

    def fetch(self, state: str) -> Grant:
        """One new token; `state` is what the last one left. Raises AuthenticationFailed, TemporaryError or
        AccountError.
        """
        with self._lock:
            try:
                if self._options.managed_identity:
                    return self._fetch_managed(self._options.managed_identity)
                return self._fetch_delegated(state) if self._options.delegated else self._fetch_as_app()
            except DeliveryError:
                raise
            except Exception as error:  # the library's own; its text may quote what it was given
                raise oauth_unavailable(f"the login failed with {type(error).__name__}") from None

    def begin_device_flow(self) -> dict[str, Any]:
        """Ask for a code that a person types in. Raises as `fetch`."""
        with self._lock:
            try:
                flow: dict[str, Any] = self._application().initiate_device_flow([self._options.scope])
            except DeliveryError:
                raise
            except Exception as error:
                raise oauth_unavailable(f"the login failed with {type(error).__name__}") from None
        if "user_code" not in flow or "device_code" not in flow:
            raise token_refusal(flow)
        flow["interval"] = min(max(flow["interval"], 1), 300)  # with 0 msal would never come back
        return flow

    def poll_device_flow(self, flow: dict[str, Any]) -> Grant | None:
        """Ask once whether the person is done; None while not. Raises as `fetch`."""
        with self._lock:
            try:
                app = self._application()
                self._cache.deserialize(None)
                result = app.acquire_token_by_device_flow(flow, exit_condition=lambda _: True)
                if result.get("error") in _PENDING:
                    return None
                return self._grant(result, self._cache.serialize())
            except DeliveryError:
                raise
            except Exception as error:
                raise oauth_unavailable(f"the login failed with {type(error).__name__}") from None

    def _fetch_as_app(self) -> Grant:
        app = self._application()
        self._cache.deserialize(None)
        return self._grant(app.acquire_token_for_client([self._options.scope], **_absorbed()), "")

    def _fetch_delegated(self, state: str) -> Grant:
        if not state:
            raise login_refused("nobody has logged in: a person has to log in by device code", needs_login=True)
        app = self._application()
        self._cache.deserialize(state)
        accounts = app.get_accounts()
        result = None
        if accounts:
            result = app.acquire_token_silent_with_error(
                [self._options.scope], accounts[0], force_refresh=True, **_absorbed()
            )
        if result is None:
            raise login_refused("the stored login holds no refresh token: log in again", needs_login=True)
        return self._grant(result, self._cache.serialize())

    def _fetch_managed(self, identity: str) -> Grant:
        msal = _msal()
        http = TokenHttp(None, resolve=_dictated, context=None)
        http.begin()
        chosen = (
            msal.SystemAssignedManagedIdentity()
            if identity == "system"
            else msal.UserAssignedManagedIdentity(client_id=identity)
        )
        client = msal.ManagedIdentityClient(chosen, http_client=http)
        resource = self._options.scope.removesuffix("/.default")
        return self._grant(client.acquire_token_for_client(resource=resource), "")

    def _application(self) -> Any:
        """The msal application. Making one asks the authority for its endpoints, once."""
        msal = _msal()
        options = self._options
        if self._http is None:
            self._http = TokenHttp(options.cloud.authority, resolve=self._resolve, context=self._context())
        self._http.begin()
        self._memory.clear()
        if self._app is None:
            cache = msal.SerializableTokenCache()
            settings: dict[str, Any] = {
                "authority": f"{options.cloud.authority}/{options.tenant_id}",
                "http_client": _Discovery(self._http),
                "http_cache": self._memory,
                "token_cache": cache,
                "instance_discovery": False,
            }
            if options.delegated:
                self._app = msal.PublicClientApplication(options.client_id, **settings)
            else:
                self._app = msal.ConfidentialClientApplication(
                    options.client_id, client_credential=_credential(options), azure_region=False, **settings
                )
            self._cache = cache
        return self._app

    def _grant(self, result: dict[str, Any], state: str) -> Grant:
        if "access_token" not in result:
            raise token_refusal(result, delegated=self._options.delegated)
        now = time.time()
        life = min(max(float(result.get("expires_in") or 0), 0.0), _LONGEST_TOKEN)
        due = result.get("refresh_on")
        return Grant.lasting(
            result["access_token"], life, now, refresh_in=max(float(due) - now, 0.0) if due else None, state=state
        )


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person needs to log in: the page, the code, and how long it is good (seconds since 1970)."""

    user_code: str
    verification_uri: str
    expires_at: float
    interval: float
    _flow: dict[str, Any] = field(repr=False)


class DeviceLogin:
    """A person's login by device code (RFC 8628): `begin` once, show the code, `poll` until it is True.

    Asking more often than the service allows is harmless: `poll` answers False without a request then.
    """

    def __init__(self, login: EntraLogin, tokens: SharedTokens, clock: Callable[[], float] = time.time) -> None:
        self._login = login
        self._tokens = tokens
        self._clock = clock
        self._code: DeviceCode | None = None
        self._next = 0.0

    def begin(self) -> DeviceCode:
        """Get a code. Raises AuthenticationFailed or TemporaryError."""
        flow = self._login.begin_device_flow()
        uri = str(flow.get("verification_uri") or flow.get("verification_url") or "")
        if not _PAGE.fullmatch(uri):
            raise login_refused("the token service names no https page for the code")
        self._code = DeviceCode(
            safe_words(str(flow["user_code"]))[:40], uri, float(flow["expires_at"]), flow["interval"], flow
        )
        self._next = self._clock() + self._code.interval
        return self._code

    def poll(self) -> bool:
        """True when the person is done and the login is stored. Raises AuthenticationFailed when it was declined or
        has run out, TemporaryError when the token service or store is away: polling on is fine then.
        """
        code = self._code
        if code is None:
            raise login_refused("no login was begun")
        now = self._clock()
        if now >= code.expires_at:
            raise login_refused("the code has run out: begin the login again", needs_login=True)
        if now < self._next:
            return False
        grant = self._login.poll_device_flow(code._flow)
        self._next = self._clock() + float(code._flow["interval"])
        if grant is None:
            return False
        self._tokens.adopt(grant)
        return True


class _Discovery:
    """Turns a refused look-up of the endpoints, which msal would report as a ValueError, into our error."""

    def __init__(self, http: TokenHttp) -> None:
        self._http = http
        self.post = http.post
        self.close = http.close

    def get(self, url: str, **more: Any) -> Any:
        answer = self._http.get(url, **more)
        if answer.status_code >= 400:
            raise token_refusal(json.loads(answer.text or "{}"), answer.status_code)
        return answer


def _msal() -> Any:
    """msal, imported when first needed: it costs a tenth of a second."""
    import msal

    # At DEBUG its cache logs each token request, with a device code in it.
    logging.getLogger("msal.token_cache").setLevel(logging.INFO)
    return msal


def _credential(options: MicrosoftOptions) -> Any:
    if options.client_secret:
        return options.client_secret.get_secret_value()
    assert options.private_key is not None
    credential = {"private_key": options.private_key.get_secret_value()}
    if options.private_key_password:
        credential["passphrase"] = options.private_key_password.get_secret_value()
    if options.thumbprint and not options.certificate:  # the older assertion, RS256 with SHA-1
        credential["thumbprint"] = options.thumbprint
    if options.certificate:
        credential["public_certificate"] = options.certificate
    return credential


def _absorbed() -> dict[str, Any]:
    """msal gives a still good token back on these alone; without the argument a 503 of Entra would hide it."""
    from msal.exceptions import MsalServiceError
    from requests.exceptions import RequestException

    return {"http_exceptions": (RequestException, MsalServiceError, OSError)}


def _dictated(host: str, port: int) -> list[tuple[str, int]]:
    return system_resolver(host, port)
