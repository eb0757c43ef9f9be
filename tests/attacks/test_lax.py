"""The careless server is careless indeed: what it shows of us would mean nothing otherwise."""

from __future__ import annotations

import socket

import pytest

from tests.attacks.lax import LaxServer
from tests.conftest import until

SECOND = b"MAIL FROM:<evil@z.example>%(end)sRCPT TO:<q@z.example>%(end)sDATA%(end)shi\r\n.\r\n"
ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\0.\r\n", b"\r\n.\0\r\n"]


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_it_takes_a_second_mail_out_of_a_body_that_is_sent_as_it_stands(end: bytes) -> None:
    with LaxServer() as server, socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
        until(lambda: b"DATA" in server.commands())
        sock.sendall(b"hello" + end + SECOND % {b"end": b"\r\n"} + b"\r\n.\r\n")
        until(lambda: len(server.taken) == 2)
        assert server.taken[1].mail_from == b"MAIL FROM:<evil@z.example>"
