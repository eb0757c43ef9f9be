"""What the smtp driver makes of servers that are late, broken, full, lying or gone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from postier.drivers.base import Ports
from postier.ledger.embedded import free_port
from postier.schemas.email import Email
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
    Unreachable,
)
from postier.schemas.receipt import Receipt
from tests.conftest import PATIENCE
from tests.drivers.kit import (
    LOCK_STEP,
    PIPELINING,
    Peer,
    ScriptedServer,
    failure,
    mail,
    nth,
    opened,
    polite,
    results,
    wait_for,
)

BOTH = pytest.mark.parametrize("extensions", [PIPELINING, LOCK_STEP], ids=["pipelining", "lock_step"])
Extensions = tuple[str, ...]


def test_a_port_nobody_listens_on_is_unreachable() -> None:
    with opened(free_port()) as driver:
        error = failure(driver, mail())

    assert isinstance(error, Unreachable)
    assert (error.stage, error.cause) == ("connect", "unreachable")


def test_a_server_that_never_greets_is_left_after_the_timeout_and_not_tried_again() -> None:
    with ScriptedServer(Peer.wait_until_gone) as server, opened(server.port, timeout_ms=200) as driver:
        began = time.monotonic()
        outcome = results(driver, mail(1), mail(2))
        took = time.monotonic() - began

    assert all(isinstance(error, Unreachable) and error.cause == "too_slow" for error in outcome)
    assert took < 15  # half of the usual time for one reply
    assert server.connections == 1


def test_a_server_that_answers_an_octet_at_a_time_is_cut_by_the_total_deadline() -> None:
    def drip(peer: Peer) -> None:
        while True:
            for octet in b"220-a very long welcome\r\n":
                peer.raw(bytes([octet]))
                time.sleep(0.02)

    with ScriptedServer(drip) as server, opened(server.port, timeout_ms=60_000, total_deadline=0.4) as driver:
        began = time.monotonic()
        error = failure(driver, mail())

    assert isinstance(error, Unreachable)
    assert error.text.startswith("too_slow")
    assert error.cause == "too_slow"
    assert time.monotonic() - began < 30  # half of the time for one reply


def test_a_tarpit_is_left_by_the_total_deadline() -> None:
    now = [0.0]

    def slowly(peer: Peer, line: str) -> str:
        now[0] += 25  # each reply alone is in time
        return "250 2.1.0 Ok"

    script = polite(extensions=LOCK_STEP, MAIL=slowly, RCPT=slowly)
    ports = Ports(clock=lambda: now[0])
    with ScriptedServer(script) as server, opened(server.port, ports=ports, total_deadline=70) as driver:
        error = failure(driver, mail(1, "a@example.com", "b@example.com", "c@example.com", "d@example.com"))

    assert type(error) is TemporaryError
    assert error.text.startswith("too_slow")
    assert error.cause == "too_slow"
    assert not server.bodies


FLOOD = """
import resource, sys
from tests.drivers.kit import failure, mail, opened
with opened(int(sys.argv[1])) as driver:
    failure(driver, mail())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = failure(driver, mail())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(error.cause, grown)
"""


@pytest.mark.parametrize("flood", [b"250-" + b"x" * 500 + b"\r\n", b"x" * 4096], ids=["many_lines", "one_line"])
def test_a_reply_of_256_mib_is_cut_and_memory_stays(flood: bytes) -> None:
    written = [0]

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.say("554 5.3.2 no")
            return
        block = b"220-hi\r\n" + flood * (65_536 // len(flood))
        while written[0] < 256 * 2**20:
            peer.raw(block)
            written[0] += len(block)

    with ScriptedServer(script) as server:
        command = [sys.executable, "-c", FLOOD, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=True)

    cause, grown = done.stdout.split()
    assert cause == "protocol"
    assert int(grown) < 16 * 1024  # kB
    assert written[0] < 32 * 2**20


def test_a_421_banner_is_a_matter_of_time() -> None:
    with ScriptedServer(polite(banner="421 4.3.2 closing down")) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert isinstance(error, TemporaryError)
    assert error.code == 421
    assert error.stage == "connect"


@BOTH
@pytest.mark.parametrize(("verb", "stage"), [("EHLO", "ehlo"), ("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data")])
def test_a_421_before_the_body_asks_for_a_retry_and_drops_the_connection(
    extensions: Extensions, verb: str, stage: str
) -> None:
    usual = {"DATA": "354 go on", "EHLO": "250 scripted"}.get(verb, "250 Ok")
    answers: dict[str, Any] = {verb: nth("421 4.3.2 too busy", then=usual)}
    script = polite(extensions=extensions, **answers)
    with ScriptedServer(script) as server, opened(server.port) as driver:
        error = failure(driver, mail(1))
        receipt = driver.send(mail(2))

    assert isinstance(error, TemporaryError)
    assert (error.code, error.stage) == (421, stage)
    assert isinstance(receipt, Receipt)
    assert server.connections == 2
    assert len(server.bodies) == 1


@BOTH
def test_a_421_at_the_second_mail_costs_that_mail_a_retry_and_no_other(extensions: Extensions) -> None:
    script = polite(extensions=extensions, MAIL=nth("250 Ok", "421 4.7.0 enough for one session", then="250 Ok"))
    with ScriptedServer(script) as server, opened(server.port) as driver:
        first, second, third = results(driver, mail(1), mail(2), mail(3))

    assert isinstance(first, Receipt)
    assert isinstance(second, TemporaryError)
    assert isinstance(third, Receipt)
    assert len(server.bodies) == 2
    assert server.connections == 2


@BOTH
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_cut_inside_the_body_is_safe_to_try_again(extensions: Extensions, reset: bool) -> None:
    def cut(peer: Peer, line: str) -> None:
        peer.say("354 go on")
        peer.read(100_000)
        peer.reset() if reset else peer.leave()

    big = b"A line of a big mail.\r\n" * 500_000
    with ScriptedServer(polite(extensions=extensions, DATA=cut)) as server, opened(server.port) as driver:
        error = failure(driver, mail(1, body=big))

    assert type(error) is TemporaryError
    assert error.stage == "body"


def test_a_refusal_in_the_middle_of_a_body_is_taken_at_its_word() -> None:
    def refuse(peer: Peer, line: str) -> None:
        peer.say("354 go on")
        peer.read(100_000)
        peer.say("552 5.3.4 message too big")
        peer.wait_until_gone()

    big = b"A line of a big mail.\r\n" * 800_000
    with ScriptedServer(polite(DATA=refuse)) as server, opened(server.port) as driver:
        began = time.monotonic()
        error = failure(driver, mail(1, body=big))

    assert isinstance(error, EmailRefused)
    assert (error.code, error.stage) == (552, "body")
    assert time.monotonic() - began < 15  # half of the usual time without progress


@BOTH
@pytest.mark.parametrize("how", ["closed", "reset", "silent", "garbage", "421"])
def test_a_body_without_a_verdict_has_an_unknown_outcome(extensions: Extensions, how: str) -> None:
    def no_verdict(peer: Peer, line: str) -> str | None:
        match how:
            case "closed":
                peer.leave()
            case "reset":
                peer.reset()
            case "silent":
                peer.wait_until_gone()
            case "garbage":
                return "what now?"
        return "421 4.3.2 shutting down"

    script = polite(extensions=extensions, DOT=no_verdict)
    with ScriptedServer(script) as server, opened(server.port, final_timeout=0.3) as driver:
        error = failure(driver, mail())

    assert isinstance(error, OutcomeUnknown)
    assert error.stage == "body"
    assert error.evidence["bytes"] == len(mail().mime)
    assert error.evidence["stage"] == "body"
    assert error.evidence["last_reply"]
    assert len(server.bodies) == 1


@BOTH
def test_the_mail_behind_a_lost_verdict_goes_over_a_new_connection(extensions: Extensions) -> None:
    def lose_the_first(peer: Peer, line: str) -> str:
        if peer.number == 1:
            peer.leave()
        return "250 2.0.0 Ok"

    with ScriptedServer(polite(extensions=extensions, DOT=lose_the_first)) as server, opened(server.port) as driver:
        first, second, third = results(driver, mail(1), mail(2), mail(3))

    assert isinstance(first, OutcomeUnknown)
    assert isinstance(second, Receipt)
    assert isinstance(third, Receipt)
    assert [b"Sample 1" in body for body in server.bodies] == [True, False, False]


@BOTH
def test_a_policy_421_to_the_body_is_a_verdict(extensions: Extensions) -> None:
    script = polite(
        extensions=extensions, DOT="421-4.7.28 unusual rate of mail from you\n421 4.7.28 try again in 5 minutes"
    )
    with ScriptedServer(script) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert isinstance(error, TemporaryError)
    assert error.retry_after == 300


@BOTH
@pytest.mark.parametrize(
    ("reply", "kind"),
    [("550 5.1.1 no such user", RecipientRefused), ("450 4.2.0 greylisted", TemporaryError)],
)
def test_one_of_three_recipients_refused_leaves_two_sent_once(
    extensions: Extensions, reply: str, kind: type[DeliveryError]
) -> None:
    script = polite(extensions=extensions, RCPT=lambda peer, line: reply if "b@" in line else "250 2.1.5 Ok")
    with ScriptedServer(script) as server, opened(server.port) as driver:
        receipt = driver.send(mail(1, "a@example.com", "b@example.com", "c@example.com"))

    (refused,) = receipt.refused
    assert refused.recipient == "b@example.com"
    assert isinstance(refused.error, kind)
    assert refused.error.stage == "rcpt"
    assert len(server.bodies) == 1


@BOTH
@pytest.mark.parametrize("data", ["354 go on", "554 5.5.1 no valid recipients"])
def test_nobody_accepted_means_nothing_sent_and_a_session_that_still_serves(extensions: Extensions, data: str) -> None:
    refuse = "550 5.1.1 no such user"
    script = polite(
        extensions=extensions,
        RCPT=lambda peer, line: refuse if "gone" in line else "250 Ok",
        DATA=nth(data, then="354 go on") if "PIPELINING" in extensions else "354 go on",
        DOT=lambda peer, line: "250 2.0.0 Ok" if server.bodies else "554 5.5.1 nobody to send to",
    )
    with ScriptedServer(script) as server, opened(server.port) as driver:
        handed: list[str] = []
        refused, taken = results(
            driver, mail(1, "gone@example.com", handing_over=lambda: handed.append("1")), mail(2, "here@example.com")
        )

    assert isinstance(refused, RecipientRefused)
    assert isinstance(taken, Receipt)
    assert handed == []
    assert server.connections == 1
    assert "RSET" in server.verbs()
    assert [b"Sample 2" in body for body in server.bodies] == [True]


@BOTH
def test_all_refused_is_temporary_when_one_of_them_may_change(extensions: Extensions) -> None:
    def answer(peer: Peer, line: str) -> str:
        return "450 4.2.1 later" if "b@" in line else "550 5.1.1 no such user"

    script = polite(extensions=extensions, RCPT=answer, DATA="554 5.5.1 no valid recipients")
    with ScriptedServer(script) as server, opened(server.port) as driver:
        error = failure(driver, mail(1, "a@example.com", "b@example.com"))

    assert isinstance(error, TemporaryError)


@pytest.mark.parametrize("words", ["451 4.7.1 Greylisted, please try again later", "450 4.2.0 Grey-listed"])
def test_greylisting_that_names_no_time_is_tried_again_after_a_minute(words: str) -> None:
    with ScriptedServer(polite(RCPT=words)) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert type(error) is TemporaryError
    assert error.retry_after == 60


@BOTH
def test_greylisting_is_a_retry_and_the_next_try_passes(extensions: Extensions) -> None:
    script = polite(extensions=extensions, RCPT=nth("451 4.7.1 Greylisted, try again in 60 seconds", then="250 Ok"))
    with ScriptedServer(script) as server, opened(server.port) as driver:
        error = failure(driver, mail())
        receipt = driver.send(mail())

    assert isinstance(error, TemporaryError)
    assert error.retry_after == 60
    assert isinstance(receipt, Receipt)
    assert server.connections == 1


@BOTH
@pytest.mark.parametrize(
    ("verb", "reply", "kind", "stage"),
    [
        ("MAIL", "530 5.7.0 Authentication required", AuthenticationFailed, "mail"),
        ("MAIL", "553 5.7.1 Sender address rejected: not owned by user", SenderRefused, "mail"),
        ("MAIL", "452 4.5.3 Too many recipients", RateLimited, "mail"),
        ("RCPT", "554 5.7.1 Relay access denied", SenderRefused, "rcpt"),
        ("DATA", "451 4.3.0 no room just now", TemporaryError, "data"),
        ("DOT", "554 5.7.1 Message rejected as spam", EmailRefused, "body"),
        ("DOT", "451 4.3.2 system not accepting", TemporaryError, "body"),
    ],
)
def test_each_refusal_blames_what_its_words_say_at_the_stage_it_came(
    extensions: Extensions, verb: str, reply: str, kind: type[DeliveryError], stage: str
) -> None:
    with ScriptedServer(polite(extensions=extensions, **{verb: reply})) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert isinstance(error, kind)
    assert error.code == int(reply[:3])
    assert error.enhanced == reply.split()[1]
    assert error.stage == stage
    assert error.reply_class


@BOTH
@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", ["HTTP/1.1 400 Bad Request", "\x00\xff", "999 what", "25", "235 2.7.0 welcome"])
def test_garbage_ends_the_session_and_never_counts_as_sent(extensions: Extensions, verb: str, reply: str) -> None:
    with ScriptedServer(polite(extensions=extensions, **{verb: reply})) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert isinstance(error, TemporaryError)
    assert not server.bodies
    assert "HTTP" not in error.text


@BOTH
def test_a_reply_nobody_asked_for_ends_the_session(extensions: Extensions) -> None:
    script = polite(extensions=extensions, DATA="354 go on\n250 2.0.0 Ok: queued early")

    with ScriptedServer(script) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert isinstance(error, TemporaryError)
    assert error.text.startswith("protocol")
    assert all(body == b"" for body in server.bodies)


def test_an_idle_session_with_an_unasked_word_is_not_used_again() -> None:
    verdict_read = threading.Event()

    def then_leave(peer: Peer, line: str) -> str | None:
        if peer.number > 1:
            return "250 2.0.0 Ok"
        peer.say("250 2.0.0 Ok")
        assert verdict_read.wait(30)
        peer.say("421 4.4.2 idle too long")
        peer.leave()
        return None

    with ScriptedServer(polite(DOT=then_leave)) as server, opened(server.port) as driver:
        driver.send(mail(1))
        verdict_read.set()
        wait_for(lambda: server.ended == 1)
        driver.send(mail(2))

    assert server.connections == 2
    assert len(server.bodies) == 2


@BOTH
def test_a_session_found_dead_costs_one_quiet_new_connection(extensions: Extensions) -> None:
    begun = [0]

    def die_at_the_second(peer: Peer, line: str) -> str:
        begun[0] += 1
        if begun[0] == 2:
            peer.leave()
        return "250 2.1.0 Ok"

    script = polite(extensions=extensions, MAIL=die_at_the_second)
    with ScriptedServer(script) as server, opened(server.port) as driver:
        outcome = results(driver, mail(1), mail(2))

    assert all(isinstance(result, Receipt) for result in outcome)
    assert server.connections == 2
    assert len(server.bodies) == 2


def test_a_new_session_that_dies_at_once_is_not_dialled_twice() -> None:
    with ScriptedServer(polite(MAIL=lambda peer, line: peer.leave())) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert type(error) is TemporaryError
    assert server.connections == 1


def test_clear_text_glued_to_the_starttls_reply_is_refused() -> None:
    script = polite(extensions=("STARTTLS",), STAR="220 2.0.0 go\n250-injected\n250 AUTH PLAIN")
    login = {"username": "office@example.org", "password": "never-sent"}
    with ScriptedServer(script) as server, opened(server.port, security="starttls", **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, Unreachable)
    assert error.text.startswith("tls_unavailable")
    assert error.cause == "tls_unavailable"
    assert server.verbs() == ["EHLO", "STAR"]


@pytest.mark.parametrize("reply", ["454 4.7.0 TLS not available", "502 5.5.1 no", "220 but no handshake follows"])
def test_starttls_that_fails_sends_nothing(reply: str) -> None:
    def answer(peer: Peer, line: str) -> None:
        peer.say(reply)
        peer.leave()

    script = polite(extensions=("STARTTLS", "AUTH PLAIN"), STAR=answer)
    login = {"username": "office@example.org", "password": "never-sent"}
    with ScriptedServer(script) as server, opened(server.port, security="starttls", **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, Unreachable)
    assert error.text.startswith("tls_unavailable")
    assert error.cause == "tls_unavailable"
    assert "AUTH" not in server.verbs()


def test_words_of_the_server_are_shown_cut_masked_and_without_control_characters() -> None:
    nasty = "550 5.1.1 <jane.roe@example.com> \x1b[31munknown\x07 \u202eevil " + "x" * 900
    with ScriptedServer(polite(RCPT=nasty)) as server, opened(server.port) as driver:
        error = failure(driver, mail())

    assert isinstance(error, RecipientRefused)
    assert "jane.roe" not in error.text
    assert "j***@e***" in error.text
    assert error.text.isprintable()
    assert len(error.text) <= 300


def test_a_server_that_echoes_the_login_does_not_get_it_into_an_error() -> None:
    def echo(peer: Peer, line: str) -> str:
        return f"535 5.7.8 bad login {line} hunter22"

    script = polite(extensions=("AUTH PLAIN",), AUTH=echo)
    login = {"username": "office@example.org", "password": "hunter22", "allow_plain_login": True}
    with ScriptedServer(script) as server, opened(server.port, **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, AuthenticationFailed)
    sent = server.lines[1].split()[-1]
    assert len(sent) > 10
    assert sent not in error.text
    assert "hunter22" not in f"{error!r}{error.__dict__}"


@pytest.mark.parametrize(("auth", "fishing"), [("plain", "334 more"), ("login", "334 VXNlcm5hbWU6")])
def test_a_server_that_asks_for_more_than_the_login_gets_nothing_more(auth: str, fishing: str) -> None:
    challenges = [0]

    def ask(peer: Peer) -> None:
        peer.say("220 hi")
        peer.line()
        peer.say("250-hi", "250 AUTH PLAIN LOGIN")
        while True:
            peer.line()
            challenges[0] += 1
            peer.say(fishing)

    login = {"username": "u@example.org", "password": "p", "auth": auth, "allow_plain_login": True}
    with ScriptedServer(ask) as server, opened(server.port, **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, DeliveryError)
    assert challenges[0] == (1 if auth == "plain" else 3)


def test_no_login_is_made_with_a_mechanism_that_was_not_chosen() -> None:
    login = {"username": "u@example.org", "password": "p", "auth": "xoauth2", "allow_plain_login": True}
    with ScriptedServer(polite(extensions=("AUTH PLAIN LOGIN",))) as server, opened(server.port, **login) as driver:
        error = failure(driver, mail())

    assert isinstance(error, AuthenticationFailed)
    assert "AUTH" not in server.verbs()


@pytest.mark.parametrize(
    "change",
    [
        {"recipients": ("a@example.com> NOTIFY=NEVER",)},
        {"recipients": ("a@example.com\r\nDATA",)},
        {"recipients": ("ok@example.com", "a b@example.com")},
        {"recipients": ()},
        {"envelope_from": "a@example.org>\r\nRCPT TO:<x@example.net"},
        {"mime": b"Subject: x\r\n\r\nend\n.\nMAIL FROM:<evil@example.org>\r\n"},
        {"mime": b"Subject: x\r\n\r\nend\r.\rnext\r\n"},
        {"mime": b"Subject: x\r\n\r\nend\n.\r\nnext\r\n"},
        {"mime": b"Subject: x\r\n\r\na\x00b\r\n"},
    ],
)
def test_what_could_smuggle_a_command_or_a_second_mail_is_refused_before_a_word(change: dict[str, Any]) -> None:
    with ScriptedServer(polite()) as server, opened(server.port) as driver:
        error, fine = results(driver, mail(1, **change), mail(2))

    assert isinstance(error, RecipientRefused | SenderRefused | EmailRefused | AccountError)
    assert isinstance(fine, Receipt)
    assert server.verbs().count("MAIL") == 1
    assert not any("evil" in line or "NOTIFY" in line or "example.net" in line for line in server.lines)


def test_a_server_that_takes_any_line_end_for_the_end_sees_one_mail() -> None:
    """CVE-2023-51764 and its kin: a lax server ends the body at LF.LF too."""
    ends = (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r\n")
    received = bytearray()

    def lax(peer: Peer, line: str) -> str:
        peer.say("354 go on")
        received.extend(peer._until(b"\r\n.\r\n") + b"\r\n.\r\n")
        return "250 2.0.0 Ok"

    body = b".\r\n.\r\n..\r\nMAIL FROM:<evil@example.org>\r\n.x\r\n"
    with ScriptedServer(polite(DATA=lax)) as server, opened(server.port) as driver:
        driver.send(mail(1, body=body))

    first_end = min(position for end in ends if (position := received.find(end)) >= 0)
    assert first_end == len(received) - len(b"\r\n.\r\n")
    assert bytes(received).replace(b"\r\n..", b"\r\n.") == mail(1, body=body).mime + b".\r\n"


def test_a_failing_source_of_mails_fails_after_the_last_verdict() -> None:
    def source() -> Iterator[Email]:
        yield mail(1)
        raise LookupError("no template")

    with ScriptedServer(polite()) as server, opened(server.port) as driver:
        conversation = driver.converse(source())
        _, first = next(conversation)
        with pytest.raises(LookupError):
            next(conversation)
        driver.send(mail(2))

    assert isinstance(first, Receipt)
    assert server.connections == 1
