"""What no provider documents: slow, cut, endless and lying answers, wrong certificates, forbidden addresses."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import threading
import time
import traceback
from typing import Any

import pytest
from pydantic import ValidationError

from postier.drivers.base import Ports
from postier.drivers.egress import public_only_resolver
from postier.drivers.http_answers import wanted_wait
from postier.drivers.http_api import MAX_ANSWER
from postier.drivers.postmark import PostmarkDriver
from postier.drivers.sendgrid import SendgridDriver
from postier.ledger.embedded import free_port
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    SenderRefused,
    TemporaryError,
    Unreachable,
)
from postier.schemas.receipt import Receipt
from tests.conftest import PATIENCE, until
from tests.drivers.http.fake import (
    SECRET,
    SENDER,
    FakeApi,
    Handler,
    Reply,
    Request,
    always,
    authority,
    failure,
    made,
    mail,
    outcome,
    receipt,
)

OPTIONS: dict[str, Any] = {"api_key": SECRET}
ACCEPTED = Reply(202, b"", {"X-Message-Id": "m-1"})
TAKEN = {"ErrorCode": 0, "Message": "OK", "MessageID": "m-1"}


def sendgrid(fake: FakeApi, **options: Any) -> Any:
    return made(SendgridDriver, fake, **OPTIONS, **options)


def dribble(octets: bytes, seconds: float) -> Any:
    """One octet at a time, so that no single read is ever late."""

    def act(handler: Handler, request: Request) -> None:
        with contextlib.suppress(OSError):
            for octet in octets:
                if handler.server.stopping.wait(seconds):
                    break
                handler.raw(bytes([octet]))
        handler.leave()

    return act


def looks() -> Ports:
    """A clock that goes on by a second whenever somebody looks at it, so that no machine is too slow."""
    seconds = itertools.count()
    return Ports(clock=lambda: float(next(seconds)))


def test_an_answer_that_drips_in_ends_at_the_deadline() -> None:
    with FakeApi(always(dribble(b"HTTP/1.1 202 Accepted\r\n" + b"X-Slow: 1\r\n" * 1_000, 0.02))) as fake:
        began = time.monotonic()
        error = failure(sendgrid(fake, ports=looks()))
        took = time.monotonic() - began

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence["octets"] > 0
    assert took < 60  # a quarter of what the whole answer would take


def test_a_body_that_drips_in_ends_at_the_deadline_and_the_status_decides() -> None:
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100000\r\n\r\n"

    def act(handler: Handler, request: Request) -> None:
        handler.raw(head)
        dribble(b"x" * 10_000, 0.02)(handler, request)

    with FakeApi(always(act)) as fake:
        began = time.monotonic()
        error = failure(sendgrid(fake, ports=looks()))
        took = time.monotonic() - began

    assert isinstance(error, AuthenticationFailed)
    assert took < 60  # a third of what the whole answer would take


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", OutcomeUnknown),
        (b"HTTP/1.1 2", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", OutcomeUnknown),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"ErrorCode":0', OutcomeUnknown),
        (b'HTTP/1.1 422 No\r\nContent-Length: 500\r\n\r\n{"ErrorCode":406', EmailRefused),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", OutcomeUnknown),
        (b"220 mail.example ESMTP\r\n", OutcomeUnknown),
        (b"\x00\x01\x02\r\n\r\n", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 200_000, OutcomeUnknown),
    ],
)
def test_an_answer_that_is_cut_or_no_http_is_told_by_what_came(octets: bytes, expected: type[DeliveryError]) -> None:
    def act(handler: Handler, request: Request) -> None:
        with contextlib.suppress(OSError):
            handler.raw(octets)
        handler.leave()

    with FakeApi(always(act)) as fake:
        error = failure(made(PostmarkDriver, fake, server_token=SECRET))
        assert fake.connections == 1

    assert type(error) is expected, error.text


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"OK"', b"{", b"[" * 100_000, b'{"ErrorCode": "0"}', b"\xff\xfe", b"<html>ok</html>"]
)
def test_a_yes_without_the_providers_proof_is_an_unknown_outcome(body: bytes) -> None:
    with FakeApi(always(Reply(200, body))) as fake:
        error = failure(made(PostmarkDriver, fake, server_token=SECRET))

    assert isinstance(error, OutcomeUnknown)
    assert error.evidence == {"status": 200}


def test_an_endless_body_is_read_to_the_cap_and_no_further() -> None:
    sent = [0]

    def act(handler: Handler, request: Request) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        handler.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not handler.server.stopping.is_set():
                handler.raw(b"x" * 65_536)
                sent[0] += 65_536
        handler.leave()

    with FakeApi(always(act)) as fake:
        error = failure(sendgrid(fake, timeout=60))

    assert isinstance(error, EmailRefused)
    assert sent[0] < 100 * MAX_ANSWER  # what the kernel's buffers took before we left


def test_a_packed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    with FakeApi(always(Reply(400, bomb, {"Content-Encoding": "gzip"}))) as fake:
        error = failure(sendgrid(fake))

    assert isinstance(error, EmailRefused)
    assert error.text == "HTTP status 400"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(status: int) -> None:
    with FakeApi(always(ACCEPTED)) as other, FakeApi(always(Reply(status, b"", {"Location": other.url}))) as fake:
        error = failure(sendgrid(fake))
        last = list(sendgrid(fake).check())[-1]
        assert other.connections == 0

    assert isinstance(error, SenderRefused)
    assert not last.ok
    assert "redirects" in last.advice


def test_cookies_are_neither_kept_nor_sent() -> None:
    with FakeApi(always(Reply(202, b"", {"Set-Cookie": "session=1; Path=/"}))) as fake:
        driver = sendgrid(fake)
        driver.send(mail())
        driver.send(mail())
        driver.close()

    assert all("cookie" not in request.headers for request in fake.requests)


def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with FakeApi(always(ACCEPTED)) as fake:
        assert receipt(sendgrid(fake)).provider_id == "m-1"


def test_connections_are_kept_and_shared_by_threads() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        driver = sendgrid(fake)
        for _ in range(5):
            driver.send(mail())
        assert fake.connections == 1
        results: list[Receipt] = []
        threads = [
            threading.Thread(target=lambda: results.extend(driver.send(mail()) for _ in range(10))) for _ in "1234"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        driver.close()
        driver.send(mail())  # a closed driver opens again
        driver.close()

    assert len(results) == 40
    assert len(fake.requests) == 46
    assert fake.connections <= 6


def test_a_connection_closed_while_idle_is_not_used_again() -> None:
    with FakeApi(always(Reply(202, b"", {"Connection": "keep-alive"}))) as fake:
        driver = sendgrid(fake)
        driver.send(mail())
        for sock in list(fake.open_sockets):
            sock.shutdown(socket.SHUT_RDWR)
        until(lambda: not fake.open_sockets, what="the server's goodbye")
        driver.send(mail())
        driver.close()

    assert fake.connections == 2


def test_a_body_that_is_not_taken_whole_is_safe_to_send_again() -> None:
    class Stubborn(FakeApi):
        def finish_request(self, request: Any, client_address: Any) -> None:
            self.connections += 1
            sock = self.context.wrap_socket(request, server_side=True)
            with contextlib.suppress(OSError):
                sock.recv(1_000)
                sock.close()

    with Stubborn(always(ACCEPTED)) as fake:
        error = failure(sendgrid(fake), mail(html="x" * 20_000_000))

    assert type(error) is TemporaryError
    assert "not whole" in error.text


def test_an_early_refusal_of_a_big_body_is_read() -> None:
    class Hasty(FakeApi):
        def finish_request(self, request: Any, client_address: Any) -> None:
            sock = self.context.wrap_socket(request, server_side=True)
            with contextlib.suppress(OSError):
                sock.recv(1_000)
                sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                while sock.recv(65_536):
                    pass
            sock.close()

    with Hasty(always(ACCEPTED)) as fake:
        error = failure(sendgrid(fake), mail(html="x" * 5_000_000))

    assert isinstance(error, EmailRefused)


def test_nobody_listening_is_unreachable() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        error = failure(sendgrid(fake, base_url=f"https://localhost:{free_port()}"))

    assert type(error) is Unreachable
    assert "refused" in error.text


def test_a_server_that_never_shakes_hands_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with FakeApi(always(ACCEPTED)) as fake:
            began = time.monotonic()
            error = failure(sendgrid(fake, base_url=f"https://localhost:{port}", timeout=0.3))

    assert type(error) is Unreachable
    assert time.monotonic() - began < 15


def test_a_certificate_for_another_name_parks_the_account() -> None:
    with FakeApi(always(ACCEPTED), context=authority()[2]) as fake:
        error = failure(sendgrid(fake))
        steps = list(sendgrid(fake).check())
        assert fake.requests == []

    assert type(error) is AccountError
    assert error.text.startswith("certificate: ")
    assert error.cause.startswith("certificate_")
    assert [(step.name, step.ok) for step in steps] == [("resolve", True), ("connect", True), ("tls", False)]


def test_a_certificate_of_an_unknown_authority_parks_the_account() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        error = failure(sendgrid(fake, ca_file=None))

    assert type(error) is AccountError
    assert error.text.startswith("certificate: ")
    assert error.cause.startswith("certificate_")


# --- where mail may go


def test_a_base_url_passes_the_instances_guard() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        error = failure(sendgrid(fake, ports=Ports(resolve=public_only_resolver())))
        steps = list(sendgrid(fake, ports=Ports(resolve=public_only_resolver())).check())
        assert fake.connections == 0

    assert type(error) is SenderRefused
    assert "egress guard" in error.text
    assert [(step.name, step.ok) for step in steps] == [("resolve", False)]


def test_a_base_url_passes_a_guard_without_ports_too() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        error = failure(sendgrid(fake, allow_hosts=()))
        assert fake.connections == 0

    assert type(error) is SenderRefused


def test_only_the_addresses_that_were_checked_are_dialled() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[tuple[str, int]]:
        asked.append((host, port))
        return [("127.0.0.1", fake.port)]

    with FakeApi(always(ACCEPTED)) as fake:
        driver = sendgrid(fake, base_url="https://localhost:1", ports=Ports(resolve=resolve))
        assert receipt(driver).provider_id == "m-1"

    assert asked == [("localhost", 1)]
    assert fake.requests[0].headers["host"] == "localhost:1"


def test_the_next_address_is_tried_when_one_is_dead() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        addresses = [("127.0.0.1", free_port()), ("127.0.0.1", fake.port)]
        receipt(sendgrid(fake, ports=Ports(resolve=lambda host, port: addresses)))
        assert fake.connections == 1


def test_the_providers_own_host_does_not_need_the_guard() -> None:
    driver = SendgridDriver(SendgridDriver.Options.model_validate(OPTIONS), sender=SENDER)

    assert driver.base == "https://api.sendgrid.com"
    with pytest.raises(Unreachable):
        driver.dialler.resolve("no-such-host.invalid", 443)


def test_clear_text_is_for_a_loopback_host_that_is_named() -> None:
    with FakeApi(always(ACCEPTED), clear=True) as fake:
        driver = sendgrid(fake)
        assert receipt(driver).provider_id == "m-1"
        assert [step.name for step in sendgrid(fake).check()] == ["resolve", "connect", "login"]
        with pytest.raises(ValidationError, match="base_url"):
            sendgrid(fake, allow_hosts=("localhost",))


def test_a_base_url_with_a_path_keeps_it() -> None:
    with FakeApi(always(ACCEPTED)) as fake:
        receipt(sendgrid(fake, base_url=f"{fake.url}/through/a/gateway/"))

    assert fake.requests[0].path == "/through/a/gateway/v3/mail/send"


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com",
        "https://",
        "https://:443",
        "https://host:0",
        "https://host:99999",
        "https://host/?a=b",
        "https://host/#x",
        "https://a b.example",
        "https://exämple.org",
        "https://host\r\nX: 1",
        "http://localhost:80",
        "http://192.0.2.1",
        "file:///etc/passwd",
    ],
)
def test_a_base_url_that_is_no_plain_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        SendgridDriver.Options.model_validate(OPTIONS | {"base_url": url})


# --- words, waits, handover


def test_the_providers_words_are_cut_and_masked_and_lose_our_secret() -> None:
    words = f"no: key {SECRET} for someone.private@example.com\x1b[31m " + "y" * 1_000
    with FakeApi(always(Reply(400, {"errors": [{"message": words}]}))) as fake:
        error = failure(sendgrid(fake))

    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert len(error.text) <= 300
    assert SECRET not in shown
    assert "someone.private" not in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "999999"}, 86_400),
        ({"retry-after": "inf"}, 86_400),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "soon", "x-ratelimit-reset": "12"}, 12),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_read_within_reason(headers: dict[str, str], seconds: float | None) -> None:
    assert wanted_wait(headers) == seconds


def test_the_handover_is_announced_after_connecting_and_before_the_first_octet() -> None:
    told: list[tuple[int, int]] = []
    with FakeApi(always(ACCEPTED)) as fake:
        driver = sendgrid(fake)
        driver.send(mail(handing_over=lambda: told.append((fake.connections, len(fake.requests)))))
        driver.send(mail(handing_over=lambda: told.append((fake.connections, len(fake.requests)))))
        driver.close()

    assert told == [(1, 0), (1, 1)]


def test_a_login_that_http_cannot_carry_is_refused_before_anything_leaves_and_not_shown() -> None:
    class Careless(SendgridDriver):
        def _login(self) -> dict[str, str]:
            return {"Authorization": f"{SECRET}\r\nX-Smuggled: 1"}

    with FakeApi(always(ACCEPTED)) as fake:
        error = failure(made(Careless, fake, **OPTIONS))
        assert fake.requests == []

    assert type(error) is SenderRefused
    assert SECRET not in "".join(traceback.format_exception(error))


def test_a_failed_handover_leaves_the_driver_usable() -> None:
    class LeaseLost(Exception):
        pass

    def refuse() -> None:
        raise LeaseLost

    with FakeApi(always(ACCEPTED)) as fake:
        driver = sendgrid(fake)
        with pytest.raises(LeaseLost):
            driver.send(mail(handing_over=refuse))
        assert isinstance(outcome(driver), Receipt)

    assert len(fake.requests) == 1


def test_a_check_does_not_disturb_mail_in_flight() -> None:
    arrived, go = threading.Event(), threading.Event()

    def answer(handler: Handler, request: Request) -> None:
        if request.method == "POST":
            arrived.set()
            go.wait(PATIENCE)
            handler.reply(ACCEPTED)
        else:
            handler.reply(Reply(200, {"scopes": ["mail.send"]}))

    results: list[Receipt] = []
    with FakeApi(always(answer)) as fake:
        driver = sendgrid(fake)
        sending = threading.Thread(target=lambda: results.append(driver.send(mail())))
        sending.start()
        assert arrived.wait(PATIENCE)
        steps = list(driver.check())
        go.set()
        sending.join()
        driver.close()

    assert all(step.ok for step in steps)
    assert [told.provider_id for told in results] == ["m-1"]
