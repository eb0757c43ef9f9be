"""The page behind a link: looking changes nothing, its button confirms, and it keeps quiet about the rest."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import subprocess
import sys
from urllib.parse import urlencode

import pytest

from postier.console import web_server
from postier.console.sender_pages import PATH
from postier.ledger.senders import Senders
from postier.ledger.store import Store
from tests.conftest import PATIENCE, until

HELLO = "hello@shop.example"


def ask(
    port: int, method: str, target: str, body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    form = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
    connection.request(method, target, body, {**form, **(headers or {})})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def test_the_page_asks_and_its_button_confirms(senders: Senders, pages: int) -> None:
    token = senders.add(HELLO, tenant="shop", name="<b>Shop</b>").token
    for method in ("GET", "GET", "HEAD"):
        assert ask(pages, method, f"{PATH}?t={token}")[0] == 200
        assert senders.list()[0].state == "pending"
    page = ask(pages, "GET", f"{PATH}?t={token}")[2]
    assert HELLO in page
    assert "&lt;b&gt;Shop&lt;/b&gt;" in page
    form = re.search(r'<form method="post" action="([^"]+)"><input type="hidden" name="t" value="([^"]+)">', page)
    assert form

    status, _, page = ask(pages, "POST", form[1], urlencode({"t": form[2]}))

    assert (status, senders.list()[0].state) == (200, "confirmed")
    assert "confirmed" in page
    assert ask(pages, "POST", form[1], urlencode({"t": form[2]}))[0] == 404


def test_a_program_is_told_where_the_page_is_served(environment: dict[str, str], store: Store) -> None:
    serving = subprocess.Popen(
        [sys.executable, "-m", "postier.console", "senders", "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        assert serving.stdout is not None
        told = json.loads(serving.stdout.readline())
        assert (told["serving"], told["host"]) == (PATH, "127.0.0.1")
        assert ask(told["port"], "GET", PATH)[0] < 500
    finally:
        serving.terminate()
        rest = serving.communicate(timeout=PATIENCE)
    assert (serving.returncode, *rest) == (0, b"", b"")


def test_the_page_speaks_french_to_those_who_do(senders: Senders, pages: int) -> None:
    token = senders.add(HELLO, tenant="shop").token

    page = ask(pages, "GET", f"{PATH}?t={token}", headers={"Accept-Language": "fr-FR,fr;q=0.9"})[2]

    assert '<html lang="fr">' in page
    assert "Oui, je suis d’accord" in page


def test_a_link_that_a_mail_gateway_lengthened_works_and_one_beyond_measure_is_answered(
    senders: Senders, pages: int
) -> None:
    token = senders.add(HELLO, tenant="shop").token
    more = "".join(f"&utm_{number}=x" for number in range(8))
    assert ask(pages, "GET", f"{PATH}?t={token}{more}")[0] == 200
    assert ask(pages, "GET", f"{PATH}?t={token}{more * 5}")[0] == 404
    assert ask(pages, "POST", PATH, f"t={token}{'&x=y' * 40}")[0] == 404
    assert senders.list()[0].state == "pending"


def test_every_answer_allows_nothing_but_its_own_style_and_form(senders: Senders, pages: int) -> None:
    token = senders.add(HELLO, tenant="shop").token
    for method, target, body in (
        ("GET", f"{PATH}?t={token}", None), ("GET", "/", None), ("GET", f"{PATH}?t=wrong", None),
        ("POST", PATH, "t=wrong"), ("DELETE", PATH, None),
    ):  # fmt: skip
        _, headers, _ = ask(pages, method, target, body)
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert "set-cookie" not in headers


def test_links_that_do_not_work_get_the_same_answer_whatever_the_reason(senders: Senders, pages: int) -> None:
    used = senders.add(HELLO, tenant="shop").token
    senders.confirm(used)
    over = senders.add("late@shop.example", tenant="shop", life=-1).token

    answers = [
        (status, page)
        for token in (used, over, "0" * 32 + "." + "A" * 43, "", "%00%0d%0aX:y")
        for status, _, page in (ask(pages, "GET", f"{PATH}?t={token}"), ask(pages, "POST", PATH, f"t={token}"))
    ]

    assert len(set(answers)) == 1
    assert answers[0][0] == 404
    assert "X:y" not in answers[0][1]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json"}, '{"t": "x"}', 400),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "--x", 400),
        ({"Content-Length": "-5"}, None, 400),
        ({"Content-Length": "1" * 500}, None, 400),
        ({"Content-Length": "1001"}, None, 413),
        ({"Transfer-Encoding": "chunked"}, None, 400),
    ],
)
def test_a_request_that_is_no_small_form_confirms_nothing(
    pages: int, headers: dict[str, str], body: str | None, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", pages), PATIENCE) as sock:
        lines = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        if body is not None:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        sock.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n{body or ''}".encode())
        assert sock.recv(100).startswith(f"HTTP/1.0 {status} ".encode())


def test_a_slow_visitor_is_cut_off_and_a_crowd_does_not_take_all_threads(
    senders: Senders, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "SECONDS", 0.5)
    token = senders.add(HELLO, tenant="shop").token
    crowd = [socket.create_connection(("127.0.0.1", pages), PATIENCE) for _ in range(web_server.TOGETHER + 8)]
    for sock in crowd:
        sock.sendall(b"GET /senders/confirm?t=slow")

    def answered() -> bool:
        try:
            return ask(pages, "GET", f"{PATH}?t={token}")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    until(answered, what="an answer after the crowd")
    for sock in crowd:
        sock.close()


def test_no_log_line_ever_shows_a_token(
    senders: Senders, pages: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    token = senders.add(HELLO, tenant="shop").token
    with caplog.at_level(logging.DEBUG):
        ask(pages, "GET", f"{PATH}?t={token}")
        ask(pages, "POST", PATH, f"t={token}&broken=%ff")
        ask(pages, "PROPFIND", f"{PATH}?t={token}")

    told = capfd.readouterr()
    assert token not in caplog.text + told.out + told.err
    assert told.err == ""
