"""Logins at Google: a service account that acts for a mailbox (JWT bearer grant, RFC 7523), or a refresh token.

The key file's own `token_uri` is not followed: whoever can put a key file into an account could otherwise have our
assertions sent anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from postier.drivers.base import DriverOptions, TokenStore
from postier.drivers.https_wire import Resolve
from postier.drivers.smtp_options import SAFE_ADDRESS, Security
from postier.drivers.smtp_words import safe_words
from postier.drivers.token_http import TokenHttp
from postier.drivers.tokens import Grant, SharedTokens, login_refused, oauth_unavailable
from postier.schemas.errors import DeliveryError

SCOPE = "https://mail.google.com/"
TOKEN_URL = "https://oauth2.googleapis.com/token"
TOKEN_HOSTS = frozenset({"oauth2.googleapis.com"})

_ERROR_NAME = re.compile(r"[a-z_]{1,40}")
_ASSERTION_SECONDS = 600


class GoogleOptions(DriverOptions):
    """Which mailbox, and how to log in as it: `service_account` (the JSON of its key file), or `client_id`,
    `client_secret` and `refresh_token`.

    `token_url`, `smtp_host`, `smtp_port` and `smtp_security` are Google's unless given; other hosts must be named in
    `allow_hosts`, which opens the egress guard as in the `smtp` driver. `timeout_ms` is milliseconds per reply,
    `final_timeout` seconds for the verdict on a mail.
    """

    mailbox: Annotated[str, StringConstraints(max_length=320)]
    service_account: SecretStr | None = None
    client_id: str | None = Field(default=None, max_length=255)
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None
    token_url: str = TOKEN_URL
    smtp_host: str = "smtp.gmail.com"
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Security = "starttls"
    envelope_from: str | None = None
    ca_file: str | None = None
    allow_hosts: tuple[str, ...] = ()
    timeout_ms: int = Field(default=30_000, ge=100, le=600_000)
    final_timeout: float = Field(default=600.0, gt=0, le=3_600)

    @field_validator("mailbox")
    @classmethod
    def _mailbox_is_an_address(cls, value: str) -> str:
        if not SAFE_ADDRESS.fullmatch(value) or not re.fullmatch(r"[^@]+@[^@]+", value):
            raise ValueError("must be one plain address: the mailbox that is sent from")
        return value

    @field_validator("token_url")
    @classmethod
    def _token_url_is_https(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            fine = parts.scheme == "https" and parts.hostname and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            fine = False
        if not fine:
            raise ValueError("must be an https address without user")
        return value

    @model_validator(mode="after")
    def _there_is_one_login(self) -> GoogleOptions:
        if (self.service_account is None) == (self.refresh_token is None):
            raise ValueError("exactly one of service_account and refresh_token is needed")
        if self.service_account is not None:
            service_account(self.service_account)
        elif not self.client_id or self.client_secret is None:
            raise ValueError("client_id: refresh_token needs the client_id and client_secret it was made for")
        return self


def service_account(text: SecretStr) -> Mapping[str, str]:
    """The key file's fields that count. Raises ValueError naming what is missing, never showing the file."""
    try:
        fields = json.loads(text.get_secret_value())
        found = {name: str(fields[name]) for name in ("client_email", "private_key")}
        found["private_key_id"] = str(fields.get("private_key_id") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            "service_account: not the JSON key file of a service account (client_email, private_key)"
        ) from None
    if "PRIVATE KEY" not in found["private_key"]:
        raise ValueError("service_account: its private_key is not a key in PEM form")
    return found


class GoogleLogin:
    """Asks Google for tokens of one mailbox. Safe for threads: one request at a time."""

    def __init__(self, options: GoogleOptions, *, resolve: Resolve, context: Callable[[], ssl.SSLContext]) -> None:
        self._options = options
        self._resolve = resolve
        self._context = context
        self._lock = threading.Lock()

    def shared(self, store: TokenStore) -> SharedTokens:
        """The mailbox's tokens over a store. The proof is part of the key, as with Microsoft."""
        options = self._options
        secrets = (options.service_account, options.client_secret, options.refresh_token)
        proof = [secret.get_secret_value() if secret else "" for secret in secrets]
        parts = [options.token_url, options.mailbox.lower(), options.client_id or "", *proof]
        key = "google/" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return SharedTokens(key, store, self.fetch)

    def fetch(self, state: str) -> Grant:
        """One new token. Raises AuthenticationFailed, TemporaryError or AccountError."""
        options = self._options
        with self._lock:
            try:
                http = TokenHttp(options.token_url, resolve=self._resolve, context=self._context())
                http.begin()
                answer = http.post(options.token_url, data=self._request(), headers={"Accept": "application/json"})
                payload = json.loads(answer.text)
                if answer.status_code != 200 or not payload.get("access_token"):
                    raise google_refusal(payload, answer.status_code, by_person=options.service_account is None)
                life = min(max(float(payload.get("expires_in") or 0), 0.0), 86_400.0)
                return Grant.lasting(payload["access_token"], life, time.time())
            except DeliveryError:
                raise
            except (ValueError, TypeError, AttributeError) as error:
                raise oauth_unavailable(f"the token service's answer makes no sense ({type(error).__name__})") from None

    def _request(self) -> dict[str, str]:
        options = self._options
        if options.service_account is not None:
            return {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": assertion(options, int(time.time())),
            }
        assert options.refresh_token is not None
        assert options.client_secret is not None
        return {
            "grant_type": "refresh_token",
            "client_id": options.client_id or "",
            "client_secret": options.client_secret.get_secret_value(),
            "refresh_token": options.refresh_token.get_secret_value(),
        }


def assertion(options: GoogleOptions, now: int) -> str:
    """The signed JWT that stands for the service account acting as the mailbox. Raises AuthenticationFailed."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    assert options.service_account is not None
    account = service_account(options.service_account)
    try:
        key = serialization.load_pem_private_key(account["private_key"].encode(), None)
    except Exception:  # cryptography raises several kinds, whose texts may speak of the key
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise login_refused("service_account: its private_key cannot be used: download a new key file")
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": account["private_key_id"]} if account["private_key_id"] else {})
    claims = {
        "iss": account["client_email"],
        "sub": options.mailbox,
        "scope": SCOPE,
        "aud": options.token_url,
        "iat": now,
        "exp": now + _ASSERTION_SECONDS,
    }
    signed = f"{_part(header)}.{_part(claims)}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_coded(signature)}"


# developers.google.com/identity/protocols/oauth2/service-account#error-codes and .../web-server#exchange-errors
ADVICE = {
    "unauthorized_client": "The service account may not act for this mailbox: give it domain-wide delegation for "
    "https://mail.google.com/ in the Admin console, by its numeric client id.",
    "invalid_client": "The client was refused: check client_id and client_secret.",
    "deleted_client": "The client was deleted in the Google Cloud console: make a new one.",
    "disabled_client": "The client is switched off in the Google Cloud console: switch it on again.",
    "invalid_scope": "The scope was refused: the delegation must name https://mail.google.com/.",
    "admin_policy_enforced": "The Workspace administrator does not let this app in: ask for it to be trusted.",
    "org_internal": "The client is for another organisation's own people only: use one of your own.",
    "access_denied": "Access was denied: check the delegation and that the mailbox exists.",
}
_GRANT_ADVICE = {
    True: "The refresh token was revoked or has run out: a person has to log in again.",
    False: "Google refuses the assertion: check the mailbox, the key file and this machine's clock.",
}


def google_refusal(payload: Mapping[str, Any], status: int, *, by_person: bool) -> DeliveryError:
    """The error for a refusal of Google's token service. `by_person` says that a refresh token was used."""
    name = str(payload.get("error") or "")
    name = name if _ERROR_NAME.fullmatch(name) else "refused"
    if name in ("rate_limit_exceeded", "slow_down"):
        return oauth_unavailable(f"{name}: too many requests", code=status, limited=True)
    if name in ("internal_failure", "server_error", "temporarily_unavailable", "backend_error"):
        return oauth_unavailable(f"{name}: the token service asks to come back", code=status)
    if name == "invalid_grant":
        return login_refused(f"{name}: {_GRANT_ADVICE[by_person]}", code=status, needs_login=by_person)
    words = safe_words(str(payload.get("error_description") or "")) or "the token service gave no reason"
    return login_refused(f"{name}: {ADVICE.get(name, words)}", code=status)


def _part(value: Mapping[str, Any]) -> str:
    return _coded(json.dumps(value, separators=(",", ":")).encode())


def _coded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
