"""Several mails over one session: the order on the wire, the hand-over, the pool."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from postier.drivers.base import Ports
from postier.drivers.smtp_reply import ConnectionLost, Wire
from postier.schemas.email import Email
from postier.schemas.errors import AuthenticationFailed, DeliveryError, OutcomeUnknown, RateLimited, TemporaryError
from postier.schemas.receipt import Receipt
from tests.drivers.kit import (
    LOCK_STEP,
    PIPELINING,
    Peer,
    ScriptedServer,
    failure,
    mail,
    opened,
    polite,
    results,
    wait_for,
)

BOTH = pytest.mark.parametrize("extensions", [PIPELINING, LOCK_STEP], ids=["pipelining", "lock_step"])
Extensions = tuple[str, ...]


def test_the_next_mail_is_announced_before_the_verdict_and_each_verdict_is_yielded_at_once() -> None:
    release = threading.Event()
    early: list[str] = []

    def script(peer: Peer) -> None:
        peer.say("220 hi")
        peer.line()
        peer.say("250-hi", "250 PIPELINING")
        assert [peer.line()[:4] for _ in range(3)] == ["MAIL", "RCPT", "DATA"]
        peer.say("250 Ok", "250 Ok", "354 go on")
        peer.body()
        early.extend(peer.line()[:4] for _ in range(3))  # all of the second mail's commands, and no verdict yet
        peer.say("250 2.0.0 first")
        assert release.wait(30)
        peer.say("250 Ok", "250 Ok", "354 go on")
        peer.body()
        peer.say("250 2.0.0 second")
        peer.line()

    with ScriptedServer(script) as server, opened(server.port) as driver:
        conversation = driver.converse(iter((mail(1), mail(2))))
        _, first = next(conversation)  # the server still keeps every reply of the second mail to itself
        release.set()
        _, second = next(conversation)
        assert next(conversation, None) is None

    assert early == ["MAIL", "RCPT", "DATA"]
    assert isinstance(first, Receipt)
    assert first.text == "2.0.0 first"
    assert isinstance(second, Receipt)
    assert second.text == "2.0.0 second"


def hears_more(peer: Peer) -> bool:
    """Whether the client says anything in the next twentieth of a second."""
    peer.sock.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        peer.held += peer.sock.recv(65_536)
    peer.sock.settimeout(None)
    return bool(peer.held)


def test_nothing_follows_a_body_before_its_verdict_at_a_server_that_is_known_to_die_of_it() -> None:
    def verdict(peer: Peer, line: str) -> str:
        assert not hears_more(peer)
        return "250 2.0.0 Ok"

    script = polite(banner="220 mail.example.org Dovecot (Debian) ready.", DOT=verdict)
    with ScriptedServer(script) as server, opened(server.port) as driver:
        outcome = results(driver, *map(mail, range(1, 6)))

    assert all(isinstance(result, Receipt) for result in outcome)
    assert server.connections == 1


def test_a_server_that_dies_of_commands_behind_a_body_costs_one_verdict_and_no_more() -> None:
    def verdict(peer: Peer, line: str) -> str:
        if hears_more(peer):
            peer.leave()
        return "250 2.0.0 Ok"

    with ScriptedServer(polite(banner="220 hidden ESMTP", DOT=verdict)) as server, opened(server.port) as driver:
        first, *rest = results(driver, *map(mail, range(1, 5)))
        later = results(driver, *map(mail, range(5, 8)))

    assert isinstance(first, OutcomeUnknown)
    assert all(isinstance(result, Receipt) for result in (*rest, *later))


@BOTH
def test_the_hand_over_is_announced_once_after_354_and_before_the_first_octet(extensions: Extensions) -> None:
    told: list[str] = []

    def data(peer: Peer, line: str) -> str:
        told.append("354")
        return "354 go on"

    def dot(peer: Peer, line: str) -> str:
        told.append("body")
        return "250 Ok"

    emails = [mail(n, handing_over=lambda n=n: told.append(f"handing over {n}")) for n in (1, 2)]
    with ScriptedServer(polite(extensions=extensions, DATA=data, DOT=dot)) as server, opened(server.port) as driver:
        results(driver, *emails)

    if extensions is LOCK_STEP:
        assert told == ["354", "handing over 1", "body", "354", "handing over 2", "body"]
    assert told.count("handing over 1") == told.count("handing over 2") == 1
    assert told.index("354") < told.index("handing over 1") < told.index("body")
    assert told.index("body") < len(told) - 2
    assert told[-2:] == ["handing over 2", "body"]


@BOTH
def test_a_hand_over_that_fails_sends_nothing_more_and_passes_through(extensions: Extensions) -> None:
    class LeaseLost(Exception):
        pass

    def refuse() -> None:
        raise LeaseLost

    with ScriptedServer(polite(extensions=extensions)) as server, opened(server.port) as driver:
        conversation = driver.converse(iter((mail(1), mail(2, handing_over=refuse), mail(3))))
        email, first = next(conversation)
        with pytest.raises(LeaseLost):
            next(conversation)
        after = driver.send(mail(4))

    assert (email.delivery_id, type(first)) == ("d1", Receipt)
    assert isinstance(after, Receipt)
    assert server.connections == 2
    assert [body.split(b"\r\n")[0] for body in server.bodies] == [b"Subject: Sample 1", b"Subject: Sample 4"]


@BOTH
def test_a_conversation_left_in_the_middle_sends_no_further_body(extensions: Extensions) -> None:
    with ScriptedServer(polite(extensions=extensions)) as server, opened(server.port) as driver:
        conversation = driver.converse(mail(n) for n in range(1, 10))
        next(conversation)
        conversation.close()  # type: ignore[attr-defined]
        receipt = driver.send(mail(10))

    assert isinstance(receipt, Receipt)
    assert [body.split(b"\r\n")[0] for body in server.bodies] == [b"Subject: Sample 1", b"Subject: Sample 10"]


@pytest.mark.parametrize("behind", [0, 9], ids=["behind the final dot", "behind some of the next mail's commands"])
def test_a_write_that_breaks_behind_the_final_dot_leaves_the_verdict_to_the_server(
    monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    whole, broken = Wire.write, threading.Event()

    def cut_once(wire: Wire, octets: bytes) -> int:
        dot = octets.find(b"\r\n.\r\n") + 5
        if not octets.endswith(b"DATA\r\n") or dot < 5 or broken.is_set():
            return whole(wire, octets)
        broken.set()
        whole(wire, octets[: dot + behind])
        lost = ConnectionLost("the connection broke")
        lost.sent = dot + behind
        raise lost

    monkeypatch.setattr(Wire, "write", cut_once)
    with ScriptedServer(polite()) as server, opened(server.port) as driver:
        outcomes = [result for _, result in driver.converse(iter((mail(1), mail(2))))]

    assert broken.is_set()
    assert all(isinstance(result, Receipt) for result in outcomes)
    assert len(server.bodies) == 2


def test_a_write_that_breaks_before_the_final_dot_is_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Wire.write

    def cut(wire: Wire, octets: bytes) -> int:
        dot = octets.find(b"\r\n.\r\n") + 5
        if dot < 5:
            return whole(wire, octets)
        lost = ConnectionLost("the connection broke")
        lost.sent = dot - 1
        raise lost

    monkeypatch.setattr(Wire, "write", cut)
    with ScriptedServer(polite()) as server, opened(server.port) as driver:
        (first, second) = [result for _, result in driver.converse(iter((mail(1), mail(2))))]

    assert isinstance(first, TemporaryError)
    assert isinstance(second, TemporaryError)


def test_a_server_that_says_goodbye_and_stays_is_not_waited_for() -> None:
    stay = threading.Event()

    def script(peer: Peer) -> None:
        polite()(peer)
        stay.wait(60)

    with ScriptedServer(script) as server:
        with opened(server.port, max_mails_per_session=1) as driver:
            answered = [
                (result, time.monotonic()) for _, result in driver.converse(mail(number) for number in range(1, 6))
            ]
        stay.set()

    assert all(isinstance(result, Receipt) for result, _ in answered)
    farewells = [later - earlier for (_, earlier), (_, later) in pairwise(answered)]
    assert min(farewells) < 0.8  # each would take a second, were it waited for


def test_an_empty_conversation_dials_nobody() -> None:
    with ScriptedServer(polite()) as server, opened(server.port) as driver:
        assert results(driver) == []

    assert server.connections == 0


@BOTH
def test_hundreds_of_recipients_each_get_their_own_answer(extensions: Extensions) -> None:
    recipients = [f"r{n}@example.com" for n in range(350)]

    def answer(peer: Peer, line: str) -> str:
        number = int(line.split("r", 1)[1].split("@")[0]) if "<r" in line else 0
        return "452 4.5.3 Too many recipients" if number >= 300 else "250 Ok"

    with ScriptedServer(polite(extensions=extensions, RCPT=answer)) as server, opened(server.port) as driver:
        receipt = driver.send(mail(1, *recipients))

    assert [refused.recipient for refused in receipt.refused] == recipients[300:]
    for refused in receipt.refused:
        assert isinstance(refused.error, RateLimited)
        assert refused.error.too_many_recipients
    assert len(server.bodies) == 1


@BOTH
def test_a_session_is_left_after_so_many_mails_with_a_farewell(extensions: Extensions) -> None:
    script = polite(extensions=extensions)
    with ScriptedServer(script) as server, opened(server.port, max_mails_per_session=3) as driver:
        outcome = results(driver, *(mail(n) for n in range(7)))

    assert all(isinstance(result, Receipt) for result in outcome)
    assert server.connections == 3
    assert server.verbs().count("QUIT") == 3


def test_a_session_is_used_again_until_it_has_been_idle_too_long() -> None:
    now = [1_000.0]
    ports = Ports(clock=lambda: now[0])
    with ScriptedServer(polite()) as server, opened(server.port, ports=ports, idle_seconds=60) as driver:
        driver.send(mail(1))
        now[0] += 59
        driver.send(mail(2))
        used_again = server.connections == 1
        now[0] += 61
        driver.send(mail(3))

    assert used_again
    assert server.connections == 2


def test_a_deadline_starts_anew_for_a_mail_that_was_announced_long_ago() -> None:
    now = [1_000.0]
    ports = Ports(clock=lambda: now[0])
    with ScriptedServer(polite()) as server, opened(server.port, ports=ports, total_deadline=5) as driver:
        conversation = driver.converse(iter((mail(1), mail(2))))
        next(conversation)
        now[0] += 500
        _, second = next(conversation)
        list(conversation)

    assert isinstance(second, Receipt)
    assert len(server.bodies) == 2


def test_threads_have_sessions_of_their_own_and_few_stay() -> None:
    sent: list[Receipt] = []
    meet = threading.Barrier(6)

    def one(number: int) -> None:
        email = mail(number, handing_over=lambda: meet.wait(30) and None)
        sent.append(driver.send(email))

    with ScriptedServer(polite()) as server, opened(server.port, ports=Ports(idle_sessions=2)) as driver:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        kept = len(driver._pool)

    assert len(sent) == 6
    assert server.connections == 6
    assert kept == 2
    assert len(driver._pool) == 0


class Tokens:
    """A token source that remembers what it was asked."""

    def __init__(self, *tokens: str) -> None:
        self.left = list(tokens)
        self.refused: list[str | None] = []

    def __call__(self, *, refused: str | None = None) -> str:
        self.refused.append(refused)
        return self.left.pop(0)


@pytest.mark.parametrize("google", [True, False], ids=["334_first", "535_at_once"])
def test_a_token_that_ran_out_is_replaced_once(google: bool) -> None:
    seen: list[str] = []

    def answer(peer: Peer, line: str) -> str | None:
        token = base64.b64decode(line.split()[-1]).decode()
        seen.append(token)
        if "fresh" in token:
            return "235 2.7.0 welcome"
        if google:
            peer.say("334 eyJzdGF0dXMiOiI0MDEifQ==")
            assert peer.line() == ""
        return "535 5.7.8 token refused"

    tokens = Tokens("stale", "fresh")
    login = {"username": "office@example.org", "auth": "xoauth2", "allow_plain_login": True}
    script = polite(extensions=("AUTH XOAUTH2 PLAIN",), AUTH=answer)
    with ScriptedServer(script) as server, opened(server.port, ports=Ports(tokens=tokens), **login) as driver:
        driver.send(mail())

    assert seen == [f"user=office@example.org\1auth=Bearer {token}\1\1" for token in ("stale", "fresh")]
    assert tokens.refused == [None, "stale"]


def test_a_second_refused_token_parks_the_account_and_shows_no_token() -> None:
    tokens = Tokens("token-one", "token-two", "token-three")
    login = {"username": "office@example.org", "auth": "auto", "allow_plain_login": True}
    script = polite(extensions=("AUTH XOAUTH2",), AUTH=lambda peer, line: f"535 5.7.3 no {line.split()[-1]} token-two")
    with ScriptedServer(script) as server, opened(server.port, ports=Ports(tokens=tokens), **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, AuthenticationFailed)
    assert server.verbs().count("AUTH") == 2
    assert "token-two" not in error.text
    assert "dXNlcj" not in error.text


def test_an_error_of_the_token_source_is_the_mails_error() -> None:
    class Away:
        def __call__(self, *, refused: str | None = None) -> str:
            raise AuthenticationFailed("a person has to consent again", needs_login=True)

    login = {"username": "office@example.org", "allow_plain_login": True}
    script = polite(extensions=("AUTH XOAUTH2",))
    with ScriptedServer(script) as server, opened(server.port, ports=Ports(tokens=Away()), **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, AuthenticationFailed)
    assert error.needs_login


def test_the_source_is_pulled_only_when_a_mail_can_leave() -> None:
    pulled: list[str] = []

    def source() -> Iterator[Email]:
        for number in range(1, 6):
            pulled.append(f"d{number}")
            yield mail(number)

    with ScriptedServer(polite()) as server, opened(server.port) as driver:
        conversation = driver.converse(source())
        for expected in (2, 3, 4, 5, 5):
            next(conversation)
            assert len(pulled) == expected
        with contextlib.suppress(StopIteration):
            next(conversation)

    assert len(server.bodies) == 5


def test_failed_connections_leak_no_descriptor() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    with ScriptedServer(polite(banner="554 5.3.2 no")) as server, opened(server.port) as driver:
        failure(driver, mail())
        before = count()
        for _ in range(200):
            assert isinstance(failure(driver, mail()), DeliveryError)
        wait_for(lambda: count() <= before + 3)
