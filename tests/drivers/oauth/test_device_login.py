"""A person's login by device code, and what it is worth afterwards."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from postier.drivers.base import Ports
from postier.drivers.microsoft_tokens import DeviceLogin
from postier.drivers.testing import sample_email
from postier.drivers.tokens import MemoryTokenStore
from postier.ledger.store import Store
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.errors import AuthenticationFailed, ConfigurationError, DeliveryError, TemporaryError
from tests.drivers.oauth.services import MAILBOX, TENANT, Microsoft, entra_error
from tests.drivers.oauth.web import Reply, json_reply

DELEGATED: dict[str, Any] = {"client_secret": None, "delegated": True}
PENDING = entra_error(70016, "authorization_pending")


class Patience:
    """Two seconds pass from one look at it to the next."""

    def __init__(self) -> None:
        self._now = time.time()

    def __call__(self) -> float:
        self._now += 2
        return self._now


def coded(payload: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()


def person(microsoft: Microsoft) -> None:
    """From now on tokens are a person's: with a refresh token, and an id token that says whose."""
    now = int(time.time())
    claims = {"aud": "app", "iss": "x", "sub": "s", "oid": "o", "tid": TENANT, "iat": now, "nbf": now, "exp": now + 999}
    claims["preferred_username"] = MAILBOX
    microsoft.entra.more = {
        "refresh_token": "canary-refresh",
        "id_token": f"{coded({'alg': 'none'})}.{coded(claims)}.x",
        "client_info": coded({"uid": "o", "utid": TENANT}),
        "scope": f"{microsoft.graph.web.url}/Mail.Send",
    }


def code_reply(microsoft: Microsoft, **changes: Any) -> Reply:
    return json_reply(
        {
            "user_code": "ABCD-EFGH",
            "device_code": "canary-device-code",
            "verification_uri": "https://login.example.test/device",
            "expires_in": 900,
            "interval": 1,
            "message": "go there",
        }
        | changes
    )


@pytest.fixture
def login(microsoft: Microsoft, token_store: SealedTokenStore) -> DeviceLogin:
    person(microsoft)
    microsoft.entra.devices = [code_reply(microsoft)]
    return microsoft.driver(ports=Ports(token_store=token_store), **DELEGATED).device_login(clock=Patience())


def test_a_person_logs_in_and_every_worker_sends(
    microsoft: Microsoft, token_store: SealedTokenStore, login: DeviceLogin
) -> None:
    worker = microsoft.driver(ports=Ports(token_store=token_store), **DELEGATED)
    began = time.time()
    code = login.begin()
    assert (code.user_code, code.verification_uri) == ("ABCD-EFGH", "https://login.example.test/device")
    assert began + 899 <= code.expires_at <= time.time() + 900

    microsoft.entra.answers = [PENDING, PENDING]
    assert [login.poll() for _ in range(3)] == [False, False, True]
    worker.send(sample_email())

    assert microsoft.graph.tokens == ["canary-token-3"]
    assert microsoft.entra.forms[-1]["grant_type"].endswith("device_code")


def test_the_refresh_token_brings_the_next_one(
    microsoft: Microsoft, token_store: SealedTokenStore, login: DeviceLogin
) -> None:
    login.begin()
    assert login.poll()
    worker = microsoft.driver(ports=Ports(token_store=token_store), **DELEGATED)
    microsoft.graph.refused.add("canary-token-1")
    microsoft.entra.more["refresh_token"] = "canary-refresh-2"

    worker.send(sample_email())
    microsoft.graph.refused.add("canary-token-2")
    worker.send(sample_email())

    assert [form.get("refresh_token") for form in microsoft.entra.forms] == [None, "canary-refresh", "canary-refresh-2"]
    assert microsoft.graph.tokens[-1] == "canary-token-3"
    assert f"{microsoft.graph.web.url}/Mail.Send" in microsoft.entra.forms[-1]["scope"]


def test_the_login_outlives_its_token_and_lies_sealed(microsoft: Microsoft, store: Store, login: DeviceLogin) -> None:
    login.begin()
    assert login.poll()

    names = list(store.redis.scan_iter(f"{store.prefix}tokens:*"))
    assert max(map(store.redis.pttl, names)) > 89 * 86_400_000
    values = [value for value in map(store.redis.get, names) if value is not None]  # a pause ends after a second
    assert values
    assert not any(b"canary" in value or b"contoso" in value for value in values)


# PROVIDERS 1.7: what only a person can mend
GONE = [
    (700082, "invalid_grant", "not used for too long"),
    (50173, "invalid_grant", "password was changed"),
    (50076, "interaction_required", "second factor"),
    (65001, "invalid_grant", "consent"),
    (53003, "invalid_grant", "conditional access"),
    (1, "invalid_grant", "log in again"),
    (1, "interaction_required", "log in again"),
]


@pytest.mark.parametrize(("number", "error", "words"), GONE)
def test_a_dead_login_needs_a_person_and_works_again_after(
    microsoft: Microsoft, token_store: SealedTokenStore, login: DeviceLogin, number: int, error: str, words: str
) -> None:
    login.begin()
    assert login.poll()
    worker = microsoft.driver(ports=Ports(token_store=token_store), **DELEGATED)
    microsoft.graph.refused.add("canary-token-1")
    microsoft.entra.answers = [entra_error(number, error)]

    with pytest.raises(AuthenticationFailed) as caught:
        worker.send(sample_email())
    assert caught.value.needs_login
    assert words in caught.value.text
    assert f"AADSTS{number}" in caught.value.text

    microsoft.entra.devices = [code_reply(microsoft)]
    again = microsoft.driver(ports=Ports(token_store=token_store), **DELEGATED).device_login(clock=Patience())
    again.begin()
    assert again.poll()
    fresh = microsoft.driver(ports=Ports(token_store=token_store), **DELEGATED)
    assert fresh.send(sample_email()).code == 202


def test_without_a_login_a_person_is_asked_for(microsoft: Microsoft) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        microsoft.driver(**DELEGATED).send(sample_email())

    assert caught.value.needs_login
    assert not microsoft.entra.web.connections


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("authorization_declined", "declined"),
        ("access_denied", "declined"),
        ("expired_token", "run out"),
        ("bad_verification_code", "words"),
    ],
)
def test_a_declined_login_ends(microsoft: Microsoft, login: DeviceLogin, error: str, words: str) -> None:
    login.begin()
    microsoft.entra.answers = [entra_error(1, error)]

    with pytest.raises(AuthenticationFailed, match=words):
        login.poll()


def test_an_outage_during_the_login_does_not_end_it(microsoft: Microsoft, login: DeviceLogin) -> None:
    login.begin()
    microsoft.entra.answers = [json_reply({}, 503)]

    with pytest.raises(TemporaryError):
        login.poll()
    assert login.poll()


def test_asking_too_often_makes_no_request(microsoft: Microsoft, login: DeviceLogin) -> None:
    microsoft.entra.devices = [code_reply(microsoft, interval=30)]
    login.begin()

    assert [login.poll() for _ in range(5)] == [False] * 5
    assert not microsoft.entra.forms


def test_a_service_that_names_no_pause_is_not_asked_without_end(microsoft: Microsoft, login: DeviceLogin) -> None:
    microsoft.entra.devices = [code_reply(microsoft, interval=0)]
    login.begin()
    microsoft.entra.answers = [PENDING]

    assert not login.poll()
    assert len(microsoft.entra.forms) == 1


def test_slow_down_makes_the_next_look_later(microsoft: Microsoft, login: DeviceLogin) -> None:
    login.begin()
    microsoft.entra.answers = [entra_error(1, "slow_down")]

    assert [login.poll() for _ in range(3)] == [False] * 3
    assert len(microsoft.entra.forms) == 1


def test_a_code_that_has_run_out_is_not_asked_about(microsoft: Microsoft) -> None:
    person(microsoft)
    microsoft.entra.devices = [code_reply(microsoft, expires_in=0)]
    login = microsoft.driver(**DELEGATED).device_login(clock=lambda: time.time() + 3_600)
    login.begin()

    with pytest.raises(AuthenticationFailed, match="run out"):
        login.poll()
    assert not microsoft.entra.forms


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (entra_error(7000218, "invalid_client", 401), AuthenticationFailed, "public client flows"),
        (json_reply({}, 503), TemporaryError, "503"),
        (json_reply({"user_code": "x"}), AuthenticationFailed, "no reason"),
        (
            json_reply({"user_code": "x", "device_code": "y", "verification_uri": "javascript:x"}),
            AuthenticationFailed,
            "no https page",
        ),
    ],
    ids=["refused", "away", "no code", "no page"],
)
def test_a_login_that_cannot_begin_says_why(
    microsoft: Microsoft, reply: Reply, kind: type[DeliveryError], words: str
) -> None:
    microsoft.entra.devices = [reply]

    with pytest.raises(kind, match=words):
        microsoft.driver(**DELEGATED).device_login(clock=Patience()).begin()


def test_an_account_of_an_app_has_no_person_to_log_in(microsoft: Microsoft) -> None:
    with pytest.raises(ConfigurationError, match="delegated"):
        microsoft.driver().device_login()


def test_nothing_of_a_login_shows(microsoft: Microsoft, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    person(microsoft)
    microsoft.entra.devices = [code_reply(microsoft)]
    store = MemoryTokenStore()
    driver = microsoft.driver(ports=Ports(token_store=store), **DELEGATED)
    login = driver.device_login(clock=Patience())
    shown = [repr(login.begin()), repr(login), repr(vars(login))]
    assert login.poll()
    microsoft.graph.refused.add("canary-token-1")
    microsoft.entra.answers = [entra_error(1, "invalid_grant", 400, "the token canary-refresh is dead")]
    with pytest.raises(AuthenticationFailed) as caught:
        driver.send(sample_email())

    shown += [repr(caught.value), repr(vars(caught.value)), caplog.text, repr(driver.tokens), repr(vars(driver.tokens))]
    assert "canary" not in "".join(shown)
