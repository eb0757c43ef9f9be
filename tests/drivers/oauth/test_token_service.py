"""Entra's refusals and misbehaviour, and what is never shown of a login."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from postier.drivers import tokens as token_module
from postier.drivers.testing import sample_email
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    RateLimited,
    SenderRefused,
    TemporaryError,
)
from tests.conftest import PATIENCE
from tests.drivers.conftest import Certificates
from tests.drivers.oauth.certificates import Proof, app_proof
from tests.drivers.oauth.services import MAILBOX, SECRET, Microsoft, TokenService, entra_error
from tests.drivers.oauth.web import Reply, Web, cut, endless, half, json_reply, silence


def failure(microsoft: Microsoft, **options: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        microsoft.driver(**options).send(sample_email())
    return caught.value


# PROVIDERS 1.7: number, OAuth error, HTTP status, error, words of the advice
REFUSALS = [
    (7000215, "invalid_client", 401, AuthenticationFailed, "not its id"),
    (7000222, "invalid_client", 401, AuthenticationFailed, "make a new one"),
    (7000112, "unauthorized_client", 400, AuthenticationFailed, "switched off"),
    (700016, "unauthorized_client", 400, AuthenticationFailed, "does not know this app"),
    (700027, "invalid_client", 401, AuthenticationFailed, "upload its public part"),
    (70011, "invalid_scope", 400, AuthenticationFailed, "scope"),
    (90002, "invalid_request", 400, AuthenticationFailed, "no such directory"),
    (53003, "invalid_grant", 400, AuthenticationFailed, "conditional access"),
    (65001, "invalid_grant", 400, AuthenticationFailed, "consent"),
    (1234567, "invalid_client", 401, AuthenticationFailed, "proof was refused"),
    (1234567, "something_new", 400, AuthenticationFailed, "words"),
    (90006, "temporarily_unavailable", 400, TemporaryError, "come back"),
    (90024, "invalid_request", 400, TemporaryError, "come back"),
    (90033, "temporarily_unavailable", 503, TemporaryError, "503"),
    (90090, "invalid_request", 400, TemporaryError, "come back"),
    (90055, "invalid_request", 400, RateLimited, "too many"),
    (1, "temporarily_unavailable", 400, TemporaryError, "come back"),
    (1, "server_error", 500, TemporaryError, "500"),
    (1, "anything", 429, RateLimited, "429"),
]


@pytest.mark.parametrize(("number", "error", "status", "kind", "advice"), REFUSALS)
def test_every_refusal_of_entra_has_its_error(
    microsoft: Microsoft, number: int, error: str, status: int, kind: type[DeliveryError], advice: str
) -> None:
    microsoft.entra.always = entra_error(number, error, status)

    refused = failure(microsoft)

    assert type(refused) is kind
    assert advice in refused.text
    assert refused.stage == "auth"
    if kind is AuthenticationFailed:
        assert isinstance(refused, AuthenticationFailed)
        assert refused.text.startswith(f"AADSTS{number} {error}: ")
        assert not refused.needs_login  # nobody's login would help an app
        assert refused.text.count(".") <= 2
    else:
        assert refused.text.startswith("oauth_unavailable: ")
        assert refused.cause == "oauth_unavailable"
    assert not microsoft.graph.requests


def test_a_mended_account_works_at_once(microsoft: Microsoft) -> None:
    """msal would answer the same 400 from memory for a minute, and Retry-After for its time."""
    driver = microsoft.driver()
    microsoft.entra.answers = [entra_error(700016, "unauthorized_client")]
    with pytest.raises(AuthenticationFailed):
        driver.send(sample_email())

    assert driver.tokens.uncached() == "canary-token-2"


def test_an_unknown_directory_is_named_as_such(microsoft: Microsoft) -> None:
    microsoft.entra.discovery = entra_error(90002, "invalid_tenant")

    error = failure(microsoft)

    assert isinstance(error, AuthenticationFailed)
    assert "AADSTS90002" in error.text


# --- the token service misbehaves (F40, T29)


@pytest.mark.parametrize("where", ["discovery", "token"])
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (json_reply({}, 500), "500"),
        (json_reply({}, 503, Retry_After="7"), "503"),
        (json_reply({}, 429, Retry_After="7"), "429"),
        (cut(), "lost"),
        (half({"access_token": "canary-token-half", "expires_in": 3600}), "cut"),
        (Reply(200, b'{"access_token": "canary-tok'), "not a JSON object"),
        (Reply(200, b"[1]"), "not a JSON object"),
        (Reply(200, b"[" * 60_000), "not a JSON object"),
        (Reply(200, b""), "not a JSON object"),
        (Reply(200, b" " * 70_000 + b"{}"), "64 kB"),
        (endless(), "64 kB"),
        (Reply(302, headers={"Location": "https://login.example.test/"}), "redirect"),
        (Reply(307, headers={"Location": "/elsewhere"}), "redirect"),
    ],
    ids=["500", "503", "429", "cut", "half", "broken", "list", "deep", "empty", "long", "endless", "302", "307"],
)
def test_a_broken_token_service_makes_the_mail_wait(microsoft: Microsoft, where: str, reply: Reply, words: str) -> None:
    if where == "discovery":
        microsoft.entra.discovery = reply
    else:
        microsoft.entra.always = reply

    error = failure(microsoft)

    assert isinstance(error, TemporaryError)
    assert error.text.startswith("oauth_unavailable: ")
    assert words in error.text
    assert error.retry_after == (7 if "Retry-After" in reply.headers else None)
    assert len(microsoft.entra.forms) == (where == "token")
    assert not microsoft.graph.requests


@pytest.mark.parametrize("reply", [silence, lambda: endless(b" ", pause=0.02)], ids=["hangs", "drips"])
@pytest.mark.parametrize("where", ["discovery", "token"])
def test_a_hanging_token_service_is_left_after_its_time(
    microsoft: Microsoft, monkeypatch: pytest.MonkeyPatch, reply: Callable[[], Reply], where: str
) -> None:
    monkeypatch.setattr("postier.drivers.token_http.REQUEST_SECONDS", 0.4)
    if where == "discovery":
        microsoft.entra.discovery = reply()
    else:
        microsoft.entra.always = reply()
    began = time.monotonic()

    error = failure(microsoft)

    assert isinstance(error, TemporaryError)
    assert 0.3 < time.monotonic() - began < PATIENCE


def test_the_time_for_a_token_is_ten_seconds_in_all() -> None:
    assert token_module.REQUEST_SECONDS == 10
    assert token_module.REQUEST_OCTETS == 64 * 1024


@pytest.mark.parametrize("changed", ["other host", "plain http", "other port"])
def test_an_authority_that_names_a_foreign_token_endpoint_gets_no_secret(
    microsoft: Microsoft, certificates: Certificates, changed: str
) -> None:
    stranger = TokenService(certificates.good)
    endpoint = {
        "other host": microsoft.entra.url.replace("localhost", "127.0.0.1"),
        "plain http": microsoft.entra.url.replace("https", "http"),
        "other port": stranger.url,
    }[changed]
    named = microsoft.entra.endpoints() | {"token_endpoint": f"{endpoint}/x/oauth2/v2.0/token"}
    microsoft.entra.discovery = json_reply(named)
    with stranger.web:
        error = failure(microsoft)

    assert isinstance(error, TemporaryError)
    assert not stranger.forms
    assert not microsoft.entra.forms


def test_a_stranger_in_entras_place_gets_no_secret(microsoft: Microsoft, certificates: Certificates) -> None:
    stranger = TokenService(certificates.other_name)
    with stranger.web:
        error = failure(microsoft, authority=stranger.url)

    assert isinstance(error, AccountError)
    assert error.text.startswith("certificate: ")
    assert error.cause.startswith("certificate_")
    assert not stranger.forms


def test_neither_proxies_nor_authorities_of_the_environment_count(
    microsoft: Microsoft, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("MSAL_FORCE_REGION", "westus2")
    monkeypatch.setenv("REGION_NAME", "westus2")

    assert microsoft.driver().send(sample_email()).code == 202


def test_an_authority_that_nobody_allowed_is_not_called(microsoft: Microsoft) -> None:
    error = failure(microsoft, allow_hosts=("elsewhere.example",))

    assert isinstance(error, SenderRefused)
    assert microsoft.entra.web.connections == 0


# --- ways to log in


@pytest.fixture(scope="module")
def proof() -> Proof:
    return app_proof()


def test_a_certificate_signs_the_newer_assertion(microsoft: Microsoft, proof: Proof) -> None:
    microsoft.driver(client_secret=None, private_key=proof.key_pem, certificate=proof.certificate_pem).send(
        sample_email()
    )

    header, claims = proof.verified(microsoft.entra.forms[0]["client_assertion"], pss=True)
    assert header["alg"] == "PS256"
    assert claims["aud"] == microsoft.entra.endpoints()["token_endpoint"]
    assert "client_secret" not in microsoft.entra.forms[0]


def test_an_encrypted_key_is_opened_with_its_password(microsoft: Microsoft, proof: Proof) -> None:
    microsoft.driver(
        client_secret=None,
        private_key=proof.encrypted("canary-password"),
        private_key_password="canary-password",
        certificate=proof.certificate_pem,
    ).send(sample_email())

    assert proof.verified(microsoft.entra.forms[0]["client_assertion"], pss=True)


def test_a_thumbprint_signs_the_older_assertion(microsoft: Microsoft, proof: Proof) -> None:
    microsoft.driver(client_secret=None, private_key=proof.key_pem, thumbprint=proof.thumbprint).send(sample_email())

    header, _ = proof.verified(microsoft.entra.forms[0]["client_assertion"], pss=False)
    assert header["alg"] == "RS256"


def test_a_managed_identity_asks_the_machine(microsoft: Microsoft, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def metadata(request: Any) -> Reply:
        asked.append(request)
        return json_reply({"access_token": "canary-token-mi", "expires_in": "86400", "resource": "x"})

    with Web(None, metadata) as machine:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", machine.url)
        driver = microsoft.driver(client_secret=None, client_id=None, managed_identity="system")
        driver.send(sample_email())
        driver.send(sample_email())
        microsoft.driver(client_secret=None, client_id=None, managed_identity="my-client-id").send(sample_email())

    assert microsoft.graph.tokens == ["canary-token-mi"] * 3
    assert [request.query.get("client_id") for request in asked] == [None, "my-client-id"]
    assert asked[0].query["resource"] == microsoft.graph.web.url
    assert asked[0].headers["metadata"] == "true"
    assert not microsoft.entra.web.connections


def test_a_machine_without_identity_says_so(microsoft: Microsoft, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = json_reply({"error": "invalid_request", "error_description": "Identity not found"}, 400)
    with Web(None, lambda request: refusal) as machine:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", machine.url)
        error = failure(microsoft, client_secret=None, managed_identity="system")

    assert isinstance(error, AuthenticationFailed)
    assert "Identity not found" in error.text


# --- nothing secret is shown


def test_no_secret_shows_in_errors_logs_or_reprs(
    microsoft: Microsoft, proof: Proof, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the services echo, at every log level."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("msal").setLevel(logging.DEBUG)
    shown: list[str] = []

    def echo(request: Any) -> str:
        return " ".join([json.dumps(request), *request.values()])

    def note(**options: Any) -> None:
        driver = microsoft.driver(**options)
        shown.extend(repr(part) for part in (driver, driver.options, vars(driver), driver.tokens, driver._login))
        try:
            shown.append(repr(driver.send(sample_email())))
        except DeliveryError as error:
            shown.extend([repr(error), repr(vars(error)), "".join(traceback.format_exception(error))])
        shown.extend(repr(step) for step in driver.check())

    def everything_back(number: int) -> None:
        """Repeat each form that comes in as the reason for its refusal."""
        service = microsoft.entra
        service.always = None
        original = service.token

        def refuse(_: int) -> Reply:
            return entra_error(number, "something_new", 400, echo(service.forms[-1]))

        service.token = refuse  # type: ignore[method-assign,assignment]
        note()
        note(client_secret=None, private_key=proof.key_pem, certificate=proof.certificate_pem)
        service.token = original  # type: ignore[method-assign]

    note()
    everything_back(1234567)
    microsoft.entra.always = Reply(200, b'{"access_token": "canary-token-broken')
    note()
    microsoft.entra.always = half({"access_token": "canary-token-half"})
    note()
    microsoft.entra.always = None
    microsoft.graph.echoes = True
    note()

    assertions = [form["client_assertion"] for form in microsoft.entra.forms if "client_assertion" in form]
    assert assertions
    text = "\n".join([*shown, caplog.text, *(repr(vars(record)) for record in caplog.records)])
    for secret in (SECRET, "canary-token-broken", "canary-token-half", *assertions, proof.key_pem):
        assert secret not in text, secret[:20]
    used = {token for token in microsoft.graph.tokens if token in text}
    assert not used
    assert MAILBOX not in "".join(part for part in shown if "Error" in part)


@pytest.mark.parametrize("token", ["", "a b", "x\r\nBcc: y@example.com", "x\x01y", "jeton-é", None, 7.5, {}])
def test_a_token_that_could_not_stand_in_a_header_is_none(microsoft: Microsoft, token: object) -> None:
    microsoft.entra.more = {"access_token": token}

    error = failure(microsoft)

    assert isinstance(error, TemporaryError)
    assert not microsoft.graph.requests


def test_an_answer_of_just_under_64_kb_is_read_whole(microsoft: Microsoft) -> None:
    microsoft.entra.more = {"padding": "x" * 65_000}

    assert microsoft.driver().send(sample_email()).code == 202
