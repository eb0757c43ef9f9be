"""One token for all who send as one identity: over threads, processes and restarts, early, and through outages."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from postier.drivers.base import Ports, TokenStore
from postier.drivers.microsoft import MicrosoftDriver
from postier.drivers.testing import sample_email
from postier.drivers.tokens import Grant, MemoryTokenStore, SharedTokens, oauth_unavailable
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.errors import AuthenticationFailed, DeliveryError, RateLimited, TemporaryError
from postier.schemas.receipt import Receipt
from tests.conftest import PATIENCE, until
from tests.drivers.oauth.services import Microsoft, entra_error
from tests.drivers.oauth.web import json_reply


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Issuer:
    """Gives one token after the other, or the failure that is set."""

    def __init__(self, clock: Clock, *, life: float = 3_600.0, refresh_in: float | None = None) -> None:
        self.clock, self.life, self.refresh_in = clock, life, refresh_in
        self.asked: list[str] = []
        self.failure: DeliveryError | None = None

    def __call__(self, state: str) -> Grant:
        self.asked.append(state)
        if self.failure is not None:
            raise self.failure
        number = len(self.asked)
        return Grant.lasting(f"t{number}", self.life, self.clock(), refresh_in=self.refresh_in, state=f"s{number}")


@pytest.fixture(params=["memory", "sealed"])
def any_store(request: pytest.FixtureRequest) -> TokenStore:
    if request.param == "memory":
        return MemoryTokenStore()
    store: SealedTokenStore = request.getfixturevalue("token_store")
    return store


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What each of so many threads gets, or the error it ends with; all begin at once."""
    gate = threading.Barrier(count)

    def one(_: int) -> Any:
        gate.wait(PATIENCE)
        try:
            return work()
        except DeliveryError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


# --- single flight


def test_a_hundred_waiting_sends_make_one_token_request(microsoft: Microsoft, token_store: SealedTokenStore) -> None:
    driver = microsoft.driver(ports=Ports(token_store=token_store))
    microsoft.entra.hold.clear()
    threading.Timer(0.2, microsoft.entra.hold.set).start()

    results = in_threads(100, lambda: driver.send(sample_email()))

    assert {type(result) for result in results} == {Receipt}
    assert len(microsoft.entra.forms) == 1
    assert Counter(microsoft.graph.tokens) == {"canary-token-1": 100}


def test_a_hundred_waiting_sends_share_one_refusal(microsoft: Microsoft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postier.drivers.tokens._USUAL_PAUSE", PATIENCE)  # nobody comes so late that it is over
    driver = microsoft.driver()
    microsoft.entra.always = entra_error(7000222, "invalid_client", 401)

    results = in_threads(100, lambda: driver.send(sample_email()))

    assert {type(result) for result in results} == {AuthenticationFailed}
    assert len({id(result) for result in results}) == 100  # a shared error would gather everybody's traceback
    assert len(microsoft.entra.forms) == 1


def test_a_hundred_sends_with_one_refused_token_make_one_new_request(
    microsoft: Microsoft, token_store: SealedTokenStore
) -> None:
    driver = microsoft.driver(ports=Ports(token_store=token_store))
    driver.send(sample_email())
    microsoft.graph.refused.add("canary-token-1")

    results = in_threads(100, lambda: driver.send(sample_email()))

    assert {type(result) for result in results} == {Receipt}
    assert len(microsoft.entra.forms) == 2


PROCESS = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from postier.drivers.base import Ports
from postier.drivers.microsoft import MicrosoftDriver, MicrosoftOptions
from postier.drivers.testing import sample_email
from postier.ledger.store import Store
from postier.ledger.tokens import SealedTokenStore
from postier.schemas.email import Mailbox
from postier.settings.seal import Sealer
import msal, requests
given = json.loads(sys.stdin.readline())
store = Store(given["url"], namespace=given["namespace"])
tokens = SealedTokenStore(store, Sealer.from_text(given["key"]), owner="school")
options = MicrosoftOptions.model_validate(given["options"])
driver = MicrosoftDriver(options, sender=Mailbox(options.mailbox), ports=Ports(token_store=tokens))
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(50) as pool:
    taken = list(pool.map(lambda _: driver.send(sample_email()).code, range(50)))
print(json.dumps(taken), flush=True)
store.close()
"""


def test_two_processes_of_fifty_sends_make_one_token_request(
    microsoft: Microsoft, valkey: EmbeddedServer, namespace: str, seal_key: str
) -> None:
    given = {
        "url": valkey.url,
        "namespace": namespace,
        "key": seal_key,
        "options": microsoft.settings(),
    }
    microsoft.entra.hold.clear()
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdin
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        until(lambda: microsoft.entra.forms, what="a token request")
        until(lambda: microsoft.entra.discoveries >= 1, what="a look-up")
        threading.Timer(0.3, microsoft.entra.hold.set).start()
        answers = [process.communicate(timeout=4 * PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(PATIENCE)

    assert [json.loads(answer) for answer in answers] == [[202] * 50] * 2
    assert len(microsoft.entra.forms) == 1
    assert Counter(microsoft.graph.tokens) == {"canary-token-1": 100}


def test_a_restart_goes_on_with_the_stored_token(microsoft: Microsoft, token_store: SealedTokenStore) -> None:
    for _ in range(3):
        microsoft.driver(ports=Ports(token_store=token_store)).send(sample_email())

    assert len(microsoft.entra.forms) == 1


@pytest.mark.parametrize(
    "change",
    [{"client_secret": "another-secret"}, {"client_id": "another-app"}, {"tenant_id": "other.example"}],
    ids=lambda change: next(iter(change)),
)
def test_another_identity_or_proof_does_not_get_the_stored_token(
    microsoft: Microsoft, token_store: SealedTokenStore, change: dict[str, str]
) -> None:
    microsoft.driver(ports=Ports(token_store=token_store)).send(sample_email())
    microsoft.driver(ports=Ports(token_store=token_store), **change).send(sample_email())

    assert microsoft.graph.tokens == ["canary-token-1", "canary-token-2"]


def test_another_owner_does_not_get_the_stored_token(
    microsoft: Microsoft, token_store: SealedTokenStore, store: Store, sealer: Any
) -> None:
    other = SealedTokenStore(store, sealer, owner="shop")
    microsoft.driver(ports=Ports(token_store=token_store)).send(sample_email())
    microsoft.driver(ports=Ports(token_store=other)).send(sample_email())

    assert len(microsoft.entra.forms) == 2


def test_two_mailboxes_of_one_app_share_its_token(microsoft: Microsoft, token_store: SealedTokenStore) -> None:
    for mailbox in ("a@contoso.example", "b@contoso.example"):
        microsoft.driver(mailbox=mailbox, ports=Ports(token_store=token_store)).send(sample_email())

    assert len(microsoft.entra.forms) == 1


# --- early renewal and outages


def test_a_token_is_renewed_when_the_service_said_so(any_store: TokenStore) -> None:
    clock = Clock()
    issuer = Issuer(clock, refresh_in=1_000)
    tokens = SharedTokens("key", any_store, issuer, clock=clock)

    before = tokens()
    clock.now += 999
    still = tokens()
    clock.now += 2

    assert (before, still, tokens()) == ("t1", "t1", "t2")
    assert issuer.asked == ["", "s1"]


def test_refresh_in_of_entra_is_honoured(microsoft: Microsoft) -> None:
    microsoft.entra.more = {"refresh_in": 0}
    driver = microsoft.driver()

    driver.send(sample_email())
    driver.send(sample_email())

    assert microsoft.graph.tokens == ["canary-token-1", "canary-token-2"]


def test_without_a_word_of_the_service_a_token_is_renewed_five_minutes_early(any_store: TokenStore) -> None:
    clock = Clock()
    tokens = SharedTokens("key", any_store, Issuer(clock), clock=clock)

    tokens()
    clock.now += 3_600 - 301
    assert tokens() == "t1"
    clock.now += 2
    assert tokens() == "t2"


def test_while_one_renews_the_others_go_on_with_the_old_token() -> None:
    clock = Clock()
    begun, go_on = threading.Event(), threading.Event()
    issuer = Issuer(clock, refresh_in=10)

    def slow(state: str) -> Grant:
        if state:
            begun.set()
            assert go_on.wait(PATIENCE)
        return issuer(state)

    tokens = SharedTokens("key", MemoryTokenStore(), slow, clock=clock)
    tokens()
    clock.now += 11
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(tokens)
        assert begun.wait(PATIENCE)
        others = [tokens() for _ in range(10)]
        go_on.set()
        assert renewing.result(PATIENCE) == "t2"
    assert others == ["t1"] * 10


@pytest.mark.parametrize("failure", ["503", "429", "cut", "invalid_client"])
def test_a_still_good_token_outlives_a_failed_renewal(microsoft: Microsoft, failure: str) -> None:
    microsoft.entra.more = {"refresh_in": 0}
    driver = microsoft.driver()
    driver.send(sample_email())
    microsoft.entra.always = {
        "503": json_reply({"error": "temporarily_unavailable"}, 503),
        "429": json_reply({"error": "throttled"}, 429, Retry_After="30"),
        "cut": json_reply([]),
        "invalid_client": entra_error(7000222, "invalid_client", 401),
    }[failure]

    for _ in range(5):
        driver.send(sample_email())

    assert microsoft.graph.tokens == ["canary-token-1"] * 6
    assert len(microsoft.entra.forms) == 2  # the failed renewal was not repeated for each mail


def test_a_failed_renewal_is_tried_again_when_the_service_asked_for_it(any_store: TokenStore) -> None:
    clock = Clock()
    issuer = Issuer(clock, refresh_in=10)
    tokens = SharedTokens("key", any_store, issuer, clock=clock)
    tokens()
    issuer.failure = oauth_unavailable("away", retry_after=100)
    clock.now += 11
    tokens()
    clock.now += 99
    tokens()
    assert len(issuer.asked) == 2
    clock.now += 2
    issuer.failure = None

    assert tokens() == "t3"


def test_a_token_at_its_end_is_not_used_any_more(any_store: TokenStore) -> None:
    clock = Clock()
    issuer = Issuer(clock)
    tokens = SharedTokens("key", any_store, issuer, clock=clock)
    tokens()
    issuer.failure = oauth_unavailable("away")
    clock.now += 3_600 - 29

    with pytest.raises(TemporaryError, match="oauth_unavailable"):
        tokens()


@pytest.mark.parametrize(("asked", "limited"), [(20.0, True), (20.0, False), (900.0, True)])
def test_retry_after_holds_for_everybody(any_store: TokenStore, asked: float, limited: bool) -> None:
    clock = Clock()
    issuer = Issuer(clock)
    issuer.failure = oauth_unavailable("busy", retry_after=asked, code=429, limited=limited)
    here = SharedTokens("key", any_store, issuer, clock=clock)
    there = SharedTokens("key", any_store, issuer, clock=clock)  # another process
    with pytest.raises(TemporaryError):
        here()
    issuer.failure = None

    clock.now += asked * 0.75
    for tokens in (here, there):
        with pytest.raises(TemporaryError) as caught:
            tokens()
        assert isinstance(caught.value, RateLimited) is limited
        assert caught.value.retry_after == pytest.approx(asked * 0.25)
    assert len(issuer.asked) == 1

    clock.now += asked * 0.25
    assert (here(), there()) == ("t2", "t2")


def test_a_refusal_is_asked_about_again_soon_for_a_person_may_have_mended_it() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    issuer.failure = AuthenticationFailed("no")
    tokens = SharedTokens("key", MemoryTokenStore(), issuer, clock=clock)
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            tokens()
    assert len(issuer.asked) == 1
    clock.now += 5
    issuer.failure = None

    assert tokens() == "t2"


# --- the store is away


class Away(MemoryTokenStore):
    def load(self, key: str) -> bytes | None:
        raise TimeoutError


def test_without_its_store_a_login_waits() -> None:
    tokens = SharedTokens("key", Away(), Issuer(Clock()), clock=Clock())

    with pytest.raises(TemporaryError, match="token store"):
        tokens()


def test_a_stopped_redis_stops_nobody_who_has_a_token(microsoft: Microsoft, tmp_path: Any, sealer: Any) -> None:
    with EmbeddedServer(tmp_path / "valkey", fsync="no") as server:
        store = Store(server.url)
        driver = microsoft.driver(ports=Ports(token_store=SealedTokenStore(store, sealer, owner="school")))
        fresh = microsoft.driver(ports=Ports(token_store=SealedTokenStore(store, sealer, owner="shop")))
        driver.send(sample_email())
    try:
        driver.send(sample_email())
        with pytest.raises(TemporaryError, match="oauth_unavailable: the token store"):
            fresh.send(sample_email())
    finally:
        store.close()
    assert len(microsoft.graph.mails) == 2


def test_a_holder_that_died_keeps_the_lock_no_longer_than_it_said(token_store: SealedTokenStore) -> None:
    began = time.monotonic()
    dead = token_store.lock("key", 0.3)
    dead.__enter__()

    with token_store.lock("key", PATIENCE):  # who gets it in that time may come in
        waited = time.monotonic() - began

    assert waited > 0.2
    dead.__exit__(None, None, None)  # the late one must not take the lock from others


def test_a_lock_that_is_not_to_be_had_says_so(any_store: TokenStore) -> None:
    with any_store.lock("key", PATIENCE), pytest.raises(TimeoutError), any_store.lock("key", 0.1):
        raise AssertionError("two are alone")


def test_what_lies_in_redis_shows_neither_token_nor_identity(
    microsoft: Microsoft, token_store: SealedTokenStore, store: Store
) -> None:
    microsoft.driver(ports=Ports(token_store=token_store)).send(sample_email())

    keys = list(store.redis.scan_iter(f"{store.prefix}*"))
    (name,) = keys
    everything = name + store.redis.get(name)
    for word in (b"canary", b"contoso", b"1111-2222-3333", b"7777-8888-9999", b"school"):  # none that a digest may hold
        assert word not in everything
    assert 3_500_000 < store.redis.pttl(name) <= 3_600_000


def test_an_entry_sealed_with_a_lost_key_counts_as_none(store: Store, seal_key: str) -> None:
    from postier.settings.seal import Sealer

    first = Sealer.from_text(seal_key)
    SealedTokenStore(store, first, owner="school").save("key", b"value", 60)
    (name,) = store.redis.scan_iter(f"{store.prefix}tokens:*")
    store.redis.set(name, Sealer.from_text(Sealer.new_key("k2")).seal(b"value", name))

    assert SealedTokenStore(store, first, owner="school").load("key") is None


def test_a_login_outlives_a_new_seal_key_and_then_the_end_of_the_old_one(store: Store, seal_key: str) -> None:
    from postier.settings.seal import Sealer

    SealedTokenStore(store, Sealer.from_text(seal_key), owner="school").save("key", b"value", 60)
    new = Sealer.new_key("k2")

    both = SealedTokenStore(store, Sealer.from_text(f"{new},{seal_key}"), owner="school")
    assert both.load("key") == b"value"
    assert SealedTokenStore(store, Sealer.from_text(new), owner="school").load("key") == b"value"
    ends = [store.redis.pttl(name) for name in store.redis.scan_iter(f"{store.prefix}tokens:*")]
    assert all(0 < end <= 60_000 for end in ends)


def test_a_newer_login_is_not_taken_back_by_an_older_key_s(store: Store, seal_key: str) -> None:
    from postier.settings.seal import Sealer

    old = SealedTokenStore(store, Sealer.from_text(seal_key), owner="school")
    both = SealedTokenStore(store, Sealer.from_text(f"{Sealer.new_key('k2')},{seal_key}"), owner="school")
    both.save("key", b"newer", 60)
    old.save("key", b"older", 60)

    assert both.load("key") == b"newer"


def test_a_stored_entry_that_makes_no_sense_is_replaced(token_store: SealedTokenStore) -> None:
    clock = Clock()
    for number, octets in enumerate([b"", b"x", b"[]", b'{"token": 1}'], start=1):
        token_store.save("key", octets, 60)
        assert SharedTokens("key", token_store, Issuer(clock), clock=clock)() == "t1", number


def test_msal_is_not_imported_before_a_token_is_needed() -> None:
    script = (
        "import sys, postier.drivers.microsoft, postier.drivers.google; "
        "print('msal' in sys.modules, 'requests' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=4 * PATIENCE
    )

    assert done.stdout.split() == ["False", "False"]
    assert MicrosoftDriver.announces_handover
