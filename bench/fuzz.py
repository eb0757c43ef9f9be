"""Throw mutated envelopes, addresses, links, SMTP and HTTP replies at everything that reads what strangers write.

    python bench/fuzz.py [--count 1000000] [--seed 1] [--seconds S] [--only envelope,address,link,smtp,http]

An input is named by target, seed and number, and is the same everywhere: `--only smtp --first 4711 --count 1` repeats
one. The verdict: no exception but the ones documented, none whose words hold a control character, and at most 100 ms of
CPU an input. Exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticCustomError

from postier.drivers.base import Ports
from postier.drivers.http_wire import Stream
from postier.drivers.mailgun import MailgunDriver, MailgunOptions
from postier.drivers.sendgrid import SendgridDriver, SendgridOptions
from postier.drivers.smtp_opening import greet, hello
from postier.drivers.smtp_options import SmtpOptions
from postier.drivers.smtp_reply import Wire, WireBroken
from postier.drivers.smtp_session import Session
from postier.drivers.smtp_wire import Conversation
from postier.schemas.account import Account, Registry
from postier.schemas.address import mask_address, parse_address
from postier.schemas.edge import admit, read_envelope, reopen, wrap
from postier.schemas.email import Email, Mailbox
from postier.schemas.errors import DeliveryError, InvalidEvent, RenderError, Unreachable
from postier.schemas.events import KINDS
from postier.schemas.events.base import EXAMPLE_TIME
from postier.schemas.links import check_link, parse_link
from postier.settings.logs import redact
from postier.workers.render import Renderer

LIMIT = 0.1  # seconds of CPU an input
TENANT = {"allowed_hosts": ["school.example", "*.school.example", "pages.example/school"],
          "forms": {"contact": {"recipients": ["office@school.example"]}}}  # fmt: skip
ACCOUNT = {"driver": "null", "sender": {"address": "post@school.example", "name": "School"}}
REGISTRY = Registry.model_validate(
    {"default_account": "main", "accounts": {"main": ACCOUNT}, "tenants": {"school": TENANT}}
)
RENDERER = Renderer(Account.model_validate({"name": "main", **ACCOUNT}))
SENDER = Mailbox("post@school.example", "School")
NASTY = [
    '\r\n', '\n', '\r', '\x00', '\t', '\x1b[31m', '\x85', '\u2028', '\u202e', '\ufeff', '\u200d', '́', '\ud800',
    '😀', 'é', 'ß', 'İ', 'ſ', 'K', 'ａ', '。', '@', '<', '>', '"', '\\', ',', ';', ':', '(', ')', '[', ']', '%',
    '%00', '%2e', '..', '/', '//', '?', '#', '=?utf-8?q?=0A?=', '=?', '?=', '{{', '}}', '{%', '<script>',
    '&lt;', '&#0;', 'xn--', 'xn--a', '-', '--', '.', 'a.', '0', '-1', '1e999', 'NaN', 'null', 'true', "9" * 30,
    "a" * 300, ' ', '\xa0', 'https://', 'javascript:', '127.0.0.1', '[::1]', '\ufdd0', '\uffff', '\U000e0041',
    "'", '`', '$', '|', '*', '+', '~', '^', '_', 'A', 'z',
]  # fmt: skip
NASTY_BYTES = [
    b'\r\n', b'\n', b'\r', b'\x00', b'250', b'250-', b'250 ', b'354 ', b'421 ', b'550 5.1.1 ', b'535 ',
    b'\xff\xfe', b'\x1b[2J', b'-', b' ', b'HTTP/1.1 ', b'200 OK', b'401 ', b'429 ', b'503 ',
    b'Content-Length: ', b'Content-Length: -1\r\n', b'Transfer-Encoding: chunked\r\n', b'Retry-After: ',
    b'99999999999', b'\r\n\r\n', b'0\r\n\r\n', b'fffffffff\r\n', b'{', b'}', b"[" * 500, b'"', b':', b',',
    b'null', b'a@b.example', b'https://x.example/y?t=z', b"x" * 3000, b'=', b'4.7.0 try again in 5 minutes',
    b'Content-Encoding: gzip\r\n', b'Location: http://127.0.0.1/\r\n', b'AUTH PLAIN', b'SIZE 1', b'PIPELINING',
    b'SMTPUTF8', b'\xc4\xb0', b"@" * 200,
]  # fmt: skip


def text(rng: random.Random, seed: str) -> str:
    """`seed` after a few changes, most of them at places where parsers differ."""
    value = seed
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 9))):
        at = rng.randrange(len(value) + 1)
        match rng.randrange(7):
            case 0 | 1:
                value = value[:at] + rng.choice(NASTY) + value[at:]
            case 2:
                value = value[:at] + value[at + rng.randrange(1, 6) :]
            case 3:
                value = (
                    value[:at]
                    + chr(rng.choice((rng.randrange(256), rng.randrange(0x3000), rng.randrange(0x110000))))
                    + value[at:]
                )
            case 4:
                end = at + rng.randrange(1, 12)
                value = value[:at] + value[at:end] * rng.choice((2, 3, 50)) + value[end:]
            case 5:
                value = value[:at] + rng.choice(NASTY) + value[at + 1 :]
            case _:
                value = value[::-1] if rng.random() < 0.05 else value.swapcase()
    return value


def octets(rng: random.Random, seed: bytes) -> bytes:
    """As `text`, for octets."""
    value = seed
    for _ in range(rng.choice((1, 1, 2, 3, 5, 9))):
        at = rng.randrange(len(value) + 1)
        match rng.randrange(5):
            case 0 | 1:
                value = value[:at] + rng.choice(NASTY_BYTES) + value[at:]
            case 2:
                value = value[:at] + value[at + rng.randrange(1, 20) :]
            case 3:
                value = value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
            case _:
                end = at + rng.randrange(1, 30)
                value = value[:at] + value[at:end] * rng.choice((2, 5, 200)) + value[end:]
    return value


# --- what is fuzzed: each takes the chance of one input, and raises only what is wrong

ENVELOPES = [
    wrap(event.example(EXAMPLE_TIME.replace(year=2090)), tenant="school", event_id=f"fuzz-{kind}").model_dump_json()
    for kind, event in KINDS.items()
]
ADDRESSES = [
    "first.last+tag@example.org",
    "élève@exemple.example",
    "o'neil@sub.example.com",
    "用户@例子.example",
    "a@xn--caf-dma.example",
]
LINKS = [
    "https://school.example/reset?token=a%2Fb#top",
    "https://a.b.school.example:443/x/y;z",
    "https://pages.example/school/a",
    "https://xn--caf-dma.school.example/é",
]


def envelope(rng: random.Random) -> str:
    seed = rng.choice(ENVELOPES)
    raw: str | bytes
    if rng.random() < 0.5:
        given = json.loads(seed)
        target = rng.choice([given, given["data"], given["data"]])
        name = rng.choice([*target, "recipients", "type", text(rng, "name")])
        target[name] = _value(rng, target.get(name))
        raw = json.dumps(given)
    elif rng.random() < 0.5:
        raw = text(rng, seed)
    else:
        raw = octets(rng, seed.encode())
    read = read_envelope(raw)
    recipients = admit(read, REGISTRY)
    assert reopen(read.kind, read.schema_version, read.data_json()) == read.data
    if rng.random() < 0.1 and recipients:
        mail = RENDERER.render(
            read.data,
            kind=read.kind,
            tenant="school",
            recipient=recipients[0],
            delivery_id="d",
            message_id="<d@x.example>",
        )
        _look_at(mail)
    return "accepted"


def _look_at(mail: Email) -> None:
    wire = mail.mime
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n"), "a bare line end"
    assert b"\0" not in wire, "a NUL"
    assert max(map(len, wire.split(b"\r\n"))) <= 998, "a long line"


def _value(rng: random.Random, old: Any) -> Any:
    match rng.randrange(8):
        case 0:
            return rng.choice([None, True, 0, -1, 1e308, 10**30, "", [], {}, [[]], [{}], {"": ""}])
        case 1:
            return [old] * rng.choice((1, 2, 1001))
        case 2:
            return {"address": text(rng, "a@example.org"), text(rng, "name"): text(rng, "x")}
        case 3 if isinstance(old, dict) and old:
            name = rng.choice(list(old))
            return {**old, name: _value(rng, old[name])}
        case _:
            return text(rng, old if isinstance(old, str) else "some words\nand more")


def address(rng: random.Random) -> str:
    given = text(rng, rng.choice(ADDRESSES))
    mask_address(given)
    redact(given)
    found = parse_address(given)
    assert parse_address(found) == found, "not its own normal form"
    assert not set(found) & set('\r\n\0 <>,;:"()[]\\'), "a mark of the grammar came through"
    return "accepted"


def link(rng: random.Random) -> str:
    given = text(rng, rng.choice(LINKS))
    redact(given)
    host, _ = parse_link(given)
    assert host.isascii()
    check_link(given, TENANT["allowed_hosts"])
    return "accepted"


class Replay:
    """A socket that takes everything and answers with octets prepared before."""

    def __init__(self, given: bytes, rng: random.Random) -> None:
        # An octet at a time costs what it costs: only short answers come like that.
        self._given, self._at = given, 0
        self._step = rng.choice((1, 7, 4096)) if len(given) < 2000 else 4096

    def recv(self, size: int) -> bytes:
        piece = self._given[self._at : self._at + min(size, self._step)]
        self._at += len(piece)
        return piece

    def send(self, data: bytes) -> int:
        return len(data)

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.1", 1

    def settimeout(self, seconds: float) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int:
        return -1


SMTP = [
    b"220 mx ESMTP\r\n250-mx\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 SMTPUTF8\r\n"
    b"250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 Ok: queued as 4XyZ12345\r\n",
    b"220 mx\r\n250 mx\r\n250 ok\r\n550 5.1.1 <a@b.example>: no such user https://x.example/?t=1\r\n250 ok\r\n",
    b"220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n452 4.7.0 slow down, try again in 5 minutes\r\n",
    b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n421 4.3.2 closing\r\n",
    b"554 5.7.1 no\r\n",
]
_SMTP_OPTIONS = SmtpOptions(host="mx.example", security="none", auth="none")
_MAIL = RENDERER.render(
    KINDS["contact_form"].example(), kind="contact_form", tenant="school",
    recipient=Mailbox("a@b.example"), delivery_id="d", message_id="<d@x.example>",
)  # fmt: skip


def smtp(rng: random.Random) -> str:
    sock: Any = Replay(octets(rng, rng.choice(SMTP)), rng)
    session = Session(Wire(sock, timeout=5, clock=time.monotonic), _SMTP_OPTIONS)
    try:
        greet(session)
        hello(session)
    except WireBroken:
        return "broken"
    spoken = Conversation(
        _SMTP_OPTIONS, take=lambda: session, dial=_nobody, give_back=lambda _: None, clock=time.monotonic
    )
    for _, result in spoken.run((_MAIL,)):
        if isinstance(result, DeliveryError):
            raise result
    return "sent"


def _nobody() -> Session:
    raise Unreachable("nobody is there")


HTTP = [
    b"HTTP/1.1 202 Accepted\r\nX-Message-Id: abc\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n"
    b'{"id": "<20260101.1@x.example>", "message": 1}',
    b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: 66\r\n\r\n"
    b'{"errors": [{"message": "Does not contain a valid address: a@b.ex"}]}',
    b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n0\r\n\r\n",
    b"HTTP/1.1 503 Later\r\nRetry-After: Fri, 31 Dec 2027 23:59:59 GMT\r\n\r\n<html>later</html>",
]


class _Wire(Stream):
    def start_tls(self, ssl_context: Any, server_hostname: Any = None, timeout: Any = None) -> _Wire:
        return self

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


_DRIVERS = [
    SendgridDriver(SendgridOptions(api_key="canary-key"), sender=SENDER, ports=Ports()),  # type: ignore[arg-type]
    MailgunDriver(MailgunOptions(api_key="canary-key", domain="school.example"), sender=SENDER, ports=Ports()),  # type: ignore[arg-type]
]


def http(rng: random.Random) -> str:
    sock: Any = Replay(octets(rng, rng.choice(HTTP)), rng)
    driver: Any = rng.choice(_DRIVERS)
    driver.dialler.connect_tcp = lambda *_, **__: _Wire(sock, driver.dialler.calls, time.monotonic)
    try:
        driver.send(_MAIL)
    finally:
        driver.close()
    return "sent"


TARGETS: dict[str, Callable[[random.Random], str]] = {
    "envelope": envelope, "address": address, "link": link, "smtp": smtp, "http": http,
}  # fmt: skip
EXPECTED: dict[str, tuple[type[Exception], ...]] = {
    "envelope": (InvalidEvent, RenderError), "address": (PydanticCustomError,), "link": (PydanticCustomError,),
    "smtp": (DeliveryError,), "http": (DeliveryError,),
}  # fmt: skip


@dataclass
class Verdict:
    """What became of a target's inputs."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    slowest_input: int = 0
    faults: list[str] = field(default_factory=list)


def run(target: str, *, count: int, seed: int, first: int = 0, until: float = float("inf")) -> Verdict:
    """Fuzz one target with the inputs `first` to `first + count`; stops early at `until` (monotonic seconds)."""
    found, act, expected = Verdict(), TARGETS[target], EXPECTED[target]
    for number in range(first, first + count):
        dice = f"{target} {seed} {number}"
        started = time.thread_time()
        try:
            outcome = act(random.Random(dice))
        except expected as error:
            outcome = error.code if isinstance(error, InvalidEvent) else type(error).__name__
            if isinstance(error, (InvalidEvent, DeliveryError)) and not str(error).isprintable():
                found.faults.append(f"{target} {number}: its words are not printable: {str(error)!r}")
        except Exception as error:
            outcome = "UNCAUGHT"
            found.faults.append(f"{target} {number}: {type(error).__name__}: {error}"[:300])
        took = time.thread_time() - started
        if took > LIMIT:
            took = min(took, _again(act, dice), _again(act, dice))
        if took > found.slowest and number > first:  # tables are loaded at their first use
            found.slowest, found.slowest_input = took, number
        if took > LIMIT and number > first:
            found.faults.append(f"{target} {number}: {took * 1000:.0f} ms of CPU")
        found.inputs += 1
        found.outcomes[outcome] += 1
        if time.monotonic() > until or len(found.faults) > 20:
            break
    return found


def _again(act: Callable[[random.Random], str], dice: str) -> float:
    """CPU seconds of the same input once more: garbage may be collected in any one, and its tables be cold."""
    started = time.thread_time()
    with contextlib.suppress(Exception):
        act(random.Random(dice))
    return time.thread_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs over all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each target")
    parser.add_argument("--only", default=",".join(TARGETS))
    given = parser.parse_args()
    names = given.only.split(",")
    socket.setdefaulttimeout(5)
    started, faults = time.monotonic(), 0
    for place, name in enumerate(names):
        until = started + given.seconds * (place + 1) / len(names)
        count = -(-given.count // len(names))
        found = run(name, count=count, seed=given.seed, first=given.first, until=until)
        faults += len(found.faults)
        slowest = f"slowest {found.slowest * 1000:5.1f} ms (input {found.slowest_input})"
        outcomes = dict(found.outcomes.most_common(12))
        print(f"{name:<9} {found.inputs:>8} inputs  {slowest}  {len(found.faults)} faults  {outcomes}", flush=True)
        for fault in found.faults:
            print(f"  {fault}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - started:.0f} s, seed {given.seed}, peak {peak:.0f} MiB, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
