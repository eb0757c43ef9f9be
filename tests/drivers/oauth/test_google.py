"""The google driver: its two logins, Google's refusals, and mail over XOAUTH2."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from postier.drivers.base import Ports
from postier.drivers.google import DEFAULT_LIMITS, GoogleDriver, GoogleOptions
from postier.drivers.testing import Behaviour, DriverContract, Scene, sample_email
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.errors import AuthenticationFailed, DeliveryError, RateLimited, TemporaryError
from tests.conftest import PATIENCE
from tests.drivers.conftest import Certificates, Files
from tests.drivers.kit import Peer, ScriptedServer, nth, polite
from tests.drivers.oauth.certificates import app_proof
from tests.drivers.oauth.servers import npm_server
from tests.drivers.oauth.services import MAILBOX, SENDER, TokenService
from tests.drivers.oauth.web import Reply, cut, endless, json_reply

PROOF = app_proof()
KEY_FILE = json.dumps(
    {
        "type": "service_account",
        "client_email": "mailer@project.example",
        "private_key": PROOF.key_pem,
        "private_key_id": "key-1",
        "token_uri": "https://elsewhere.example.test/token",
    }
)
PERSON = {
    "client_id": "app.example",
    "client_secret": "canary-google-secret",
    "refresh_token": "canary-google-refresh",
}
MORE = ("PIPELINING", "8BITMIME", "AUTH XOAUTH2")
REFUSED = "535-5.7.8 Username and Password not accepted.\n535 5.7.8 BadCredentials"


def settings(service: TokenService, ca_file: str, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "mailbox": MAILBOX,
        "token_url": f"{service.url}/token",
        "ca_file": ca_file,
        "allow_hosts": ("localhost", "127.0.0.1"),
        "smtp_host": "localhost",
        "timeout_ms": int(PATIENCE * 1_000),
    }
    return given | changes


@pytest.fixture
def service(files: Files) -> Iterator[TokenService]:
    made = TokenService(files.context)
    with made.web:
        yield made


@pytest.fixture
def make(service: TokenService, files: Files) -> Iterator[Callable[..., GoogleDriver]]:
    with ExitStack() as stack:

        def made(*, ports: Ports | None = None, **changes: Any) -> GoogleDriver:
            checked = GoogleOptions.model_validate(settings(service, files.ca_file, **changes))
            driver = GoogleDriver(checked, sender=SENDER, ports=ports)
            stack.callback(driver.close)
            return driver

        yield made


def test_a_service_account_signs_for_the_mailbox(service: TokenService, make: Callable[..., GoogleDriver]) -> None:
    before = int(time.time())

    assert make(service_account=KEY_FILE).tokens() == "canary-token-1"

    (form,) = service.forms
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims = PROOF.verified(form["assertion"], pss=False)
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
    assert {name: claims[name] for name in ("iss", "sub", "scope", "aud")} == {
        "iss": "mailer@project.example",
        "sub": MAILBOX,
        "scope": "https://mail.google.com/",
        "aud": f"{service.url}/token",
    }
    assert before <= claims["iat"] < claims["exp"] <= before + 3_600


def test_a_refresh_token_is_exchanged(service: TokenService, make: Callable[..., GoogleDriver]) -> None:
    assert make(**PERSON).tokens() == "canary-token-1"

    assert service.forms == [PERSON | {"grant_type": "refresh_token"}]


def test_googles_own_addresses_are_the_defaults() -> None:
    options = GoogleOptions.model_validate({"mailbox": MAILBOX, **PERSON})

    assert options.token_url == "https://oauth2.googleapis.com/token"
    assert (options.smtp_host, options.smtp_port, options.smtp_security) == ("smtp.gmail.com", 587, "starttls")
    assert (DEFAULT_LIMITS.per_day, DEFAULT_LIMITS.max_recipients) == (2_000, 100)


# developers.google.com/identity/protocols/oauth2: error, status, by a person, error, words
REFUSALS = [
    ("invalid_grant", 400, True, AuthenticationFailed, "log in again"),
    ("invalid_grant", 400, False, AuthenticationFailed, "clock"),
    ("unauthorized_client", 401, False, AuthenticationFailed, "domain-wide delegation"),
    ("invalid_client", 401, True, AuthenticationFailed, "client_id"),
    ("deleted_client", 401, True, AuthenticationFailed, "deleted"),
    ("disabled_client", 401, True, AuthenticationFailed, "switched off"),
    ("invalid_scope", 400, False, AuthenticationFailed, "delegation"),
    ("admin_policy_enforced", 400, True, AuthenticationFailed, "administrator"),
    ("something_new", 400, True, AuthenticationFailed, "their words"),
    ("rate_limit_exceeded", 403, True, RateLimited, "too many"),
    ("anything", 429, True, RateLimited, "429"),
    ("internal_failure", 400, True, TemporaryError, "come back"),
    ("internal_failure", 500, True, TemporaryError, "500"),
    ("backend_error", 503, True, TemporaryError, "503"),
]


@pytest.mark.parametrize(("error", "status", "by_person", "kind", "words"), REFUSALS)
def test_every_refusal_of_google_has_its_error(
    service: TokenService,
    make: Callable[..., GoogleDriver],
    error: str,
    status: int,
    by_person: bool,
    kind: type[DeliveryError],
    words: str,
) -> None:
    service.always = json_reply({"error": error, "error_description": "their words"}, status)
    driver = make(**(PERSON if by_person else {"service_account": KEY_FILE}))

    with pytest.raises(DeliveryError) as caught:
        driver.tokens()

    assert type(caught.value) is kind
    assert words in caught.value.text
    assert caught.value.stage == "auth"
    if isinstance(caught.value, AuthenticationFailed):
        assert caught.value.needs_login is (by_person and error == "invalid_grant")


@pytest.mark.parametrize(
    "reply",
    [
        cut(),
        endless(),
        json_reply({}, 503, Retry_After="7"),
        json_reply([]),
        json_reply({"access_token": "x", "expires_in": "soon"}),
        Reply(200, b'{"access_token": "canary-tok'),
        Reply(302, headers={"Location": "/x"}),
    ],
    ids=["cut", "endless", "503", "list", "nonsense", "broken", "redirect"],
)
def test_a_broken_token_service_makes_the_mail_wait(
    service: TokenService, make: Callable[..., GoogleDriver], reply: Reply
) -> None:
    service.always = reply

    with pytest.raises(TemporaryError, match="oauth_unavailable") as caught:
        make(**PERSON).tokens()
    assert caught.value.retry_after == (7 if "Retry-After" in reply.headers else None)
    assert len(service.forms) == 1


def test_a_hundred_waiting_sends_make_one_token_request(
    service: TokenService, make: Callable[..., GoogleDriver], token_store: SealedTokenStore
) -> None:
    driver = make(service_account=KEY_FILE, ports=Ports(token_store=token_store))

    with ThreadPoolExecutor(100) as pool:
        tokens = set(pool.map(lambda _: driver.tokens(), range(100)))

    assert tokens == {"canary-token-1"}
    assert len(service.forms) == 1


def test_two_mailboxes_of_one_service_account_have_a_token_each(
    service: TokenService, make: Callable[..., GoogleDriver], token_store: SealedTokenStore
) -> None:
    ports = Ports(token_store=token_store)
    tokens = [
        make(service_account=KEY_FILE, mailbox=box, ports=ports).tokens() for box in (MAILBOX, "b@contoso.example")
    ]

    assert tokens == ["canary-token-1", "canary-token-2"]


def test_mail_goes_through_an_independent_server(
    service: TokenService, make: Callable[..., GoogleDriver], files: Files, tmp_path: Path
) -> None:
    with npm_server(files, tmp_path) as server:
        server.accept("canary-token-2")
        driver = make(**PERSON, smtp_port=server.port)
        assert driver.send(sample_email()).code == 250
        server.accept("canary-token-3")
        assert all(step.ok for step in driver.check())
        assert server.logins() == ["canary-token-1", "canary-token-2", "canary-token-3"]


def test_googles_explained_refusal_is_answered_with_an_empty_line_and_a_new_token(
    service: TokenService, make: Callable[..., GoogleDriver]
) -> None:
    lines: list[str] = []

    def explain(peer: Peer, line: str) -> str:
        if "AUTH" in lines:
            return "235 2.7.0 Accepted"
        lines.append("AUTH")
        peer.say("334 eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIn0=")
        lines.append(peer.line())
        return REFUSED

    with ScriptedServer(polite(extensions=MORE, AUTH=explain)) as server:
        driver = make(**PERSON, smtp_port=server.port, smtp_security="none")
        assert driver.send(sample_email()).code == 250
        driver.close()

    assert lines == ["AUTH", ""]
    assert len(service.forms) == 2


def test_a_second_refusal_stops_the_account(service: TokenService, make: Callable[..., GoogleDriver]) -> None:
    with ScriptedServer(polite(extensions=MORE, AUTH=nth(then=REFUSED))) as server:
        driver = make(**PERSON, smtp_port=server.port, smtp_security="none")
        with pytest.raises(AuthenticationFailed) as caught:
            driver.send(sample_email())

    assert caught.value.code == 535
    assert len(service.forms) == 2


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "exactly one"),
        ({**PERSON, "service_account": KEY_FILE}, "exactly one"),
        ({"refresh_token": "canary-google-refresh"}, "client_id"),
        ({"service_account": "{}"}, "service_account"),
        ({"service_account": '{"client_email": "a", "private_key": "canary-google-key"}'}, "private_key"),
        ({"service_account": "[canary-google-key"}, "service_account"),
        ({**PERSON, "token_url": "http://x.example/token"}, "token_url"),
        ({**PERSON, "token_url": "https://u:p@x.example/token"}, "token_url"),
        ({**PERSON, "mailbox": "office"}, "mailbox"),
    ],
)
def test_a_wrong_option_is_named_without_its_secrets(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GoogleOptions.model_validate({"mailbox": MAILBOX, **changes})

    assert word in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_key_that_cannot_be_used_is_the_accounts_fault(make: Callable[..., GoogleDriver]) -> None:
    broken = json.dumps(
        {
            "client_email": "a@b.example",
            "private_key": "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
        }
    )
    with pytest.raises(AuthenticationFailed, match="private_key") as caught:
        make(service_account=broken).tokens()
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_no_secret_shows(
    service: TokenService, make: Callable[..., GoogleDriver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    plain = service.token

    def echo(_: int) -> Reply:
        words = " ".join(service.forms[-1].values())
        return json_reply({"error": "something_new", "error_description": words}, 400)

    for login in (PERSON, {"service_account": KEY_FILE}):
        service.token = plain  # type: ignore[method-assign]
        driver = make(**login)
        driver.tokens()
        service.token = echo  # type: ignore[method-assign,assignment]
        with pytest.raises(AuthenticationFailed) as caught:
            driver.tokens.uncached()
        shown += [repr(part) for part in (driver.options, vars(driver), vars(driver.tokens), vars(caught.value))]
        shown += traceback.format_exception(caught.value)

    text = "".join([*shown, caplog.text])
    assertion = service.forms[-1]["assertion"]
    assert "canary" not in text
    assert assertion not in text
    assert PROOF.key_pem[30:90] not in text


def leave(peer: Peer, line: str) -> None:
    peer.leave()


class TestContract(DriverContract):
    driver = GoogleDriver
    secrets = ("canary-google-secret", "canary-google-refresh", "canary-token")
    wrong_options = (
        ({"mailbox": "office"}, "mailbox"),
        ({"refresh_token": None}, "exactly one"),
        ({"token_url": "ftp://x.example"}, "token_url"),
        ({"ca_file": "/nowhere"}, "ca_file"),
        ({"allow_hosts": ["a b"]}, "allow_hosts"),
    )

    @pytest.fixture(autouse=True)
    def _authority(self, certificates: Certificates) -> None:
        self.certificates = certificates

    @contextmanager
    def scene(self, behaviour: Behaviour) -> Iterator[Scene]:
        answers: dict[str, Any] = {
            "refuses_recipient": {"RCPT": "550 5.1.1 no such user"},
            "busy": {"MAIL": "451 4.3.2 try again later"},
            "throttles": {"MAIL": "450 4.7.1 too many messages, slow down"},
            "cuts_before_handover": {"RCPT": leave},
            "cuts_after_handover": {"DOT": leave},
        }
        service = TokenService(self.certificates.good)
        if behaviour == "refuses_login":
            service.always = json_reply({"error": "invalid_grant"}, 400)
        script = polite(extensions=MORE, **({"AUTH": "235 2.7.0 welcome"} | answers.get(behaviour, {})))
        with (
            service.web,
            ScriptedServer(Peer.wait_until_gone if behaviour == "silent" else script) as server,
        ):
            given = settings(service, self.certificates.ca_file, **PERSON)
            given |= {"smtp_host": "127.0.0.1", "smtp_port": server.port, "smtp_security": "none"}
            if behaviour == "silent":
                given["timeout_ms"] = 300
            yield Scene(given, taken=lambda: len(server.bodies), attempts=lambda: server.connections)
