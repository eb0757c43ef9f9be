"""T25, T26, G8: answers of a quarter of a gigabyte cost a few megabytes, and compressed ones are not unpacked."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from postier.drivers.sendgrid import SendgridDriver, SendgridOptions
from postier.schemas.errors import DeliveryError
from tests.drivers.http.fake import FakeApi, Handler, Request
from tests.drivers.kit import Gone, Peer, ScriptedServer, failure, mail, opened, polite

MIB = 2**20
BOMB = 256 * MIB
CHUNK = 256 * 1024


def resident() -> int:
    """Bytes of this process in memory now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


class Peak:
    """The largest growth while something runs, looked at every millisecond."""

    def __enter__(self) -> Peak:
        self.start = self.most = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.001):
            self.most = max(self.most, resident())

    @property
    def growth(self) -> int:
        return self.most - self.start


def flood(line: bytes) -> Callable[[Peer], None]:
    """Say `line` again and again, up to a quarter of a gigabyte or until nobody listens."""
    chunk = line * (CHUNK // len(line))

    def serve(peer: Peer) -> None:
        peer.raw(b"220-" if line.startswith(b"220") else b"220 ")
        try:
            for _ in range(BOMB // len(chunk)):
                peer.sock.sendall(chunk)
        except OSError:
            raise Gone from None

    return serve


LINES = {"line": b"x", "lines": b"220-hello\r\n", "nul": b"\0", "long": b"220-" + b"y" * 1900 + b"\r\n"}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_an_endless_smtp_answer_is_cut(line: bytes) -> None:
    with ScriptedServer(polite()) as warm, opened(warm.port) as driver:
        driver.send(mail())
    with ScriptedServer(flood(line)) as server, opened(server.port) as driver, Peak() as peak:
        assert isinstance(failure(driver, mail()), DeliveryError)
    assert peak.growth < 16 * MIB, f"{peak.growth / MIB:.1f} MiB"


def endless(handler: Handler, request: Request) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % BOMB)
    for _ in range(BOMB // CHUNK):
        handler.raw(b"[" * CHUNK)


def endless_head(handler: Handler, request: Request) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\n")
    for number in range(BOMB // CHUNK):
        handler.raw(b"X-%d: " % number + b"y" * CHUNK + b"\r\n")


@cache
def packed() -> bytes:
    """64 MiB of nothing."""
    return gzip.compress(b"\0" * (64 * MIB))


def zipped(handler: Handler, request: Request) -> None:
    head = b"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    handler.raw(head % len(packed()) + packed())


@pytest.mark.parametrize("act", [endless, endless_head, zipped])
def test_an_endless_or_packed_http_answer_is_cut(act: Callable[[Handler, Request], None]) -> None:
    packed()  # its making is not what is measured
    with FakeApi(lambda _: act) as api:
        driver = SendgridDriver(
            SendgridOptions.model_validate({"api_key": "canary", **api.options}), sender=mail().sender
        )
        driver.tls_context()
        with Peak() as peak:
            assert isinstance(failure(driver, mail()), DeliveryError)  # type: ignore[arg-type]
        driver.close()
    assert peak.growth < 16 * MIB, f"{peak.growth / MIB:.1f} MiB"
