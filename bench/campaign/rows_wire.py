"""F35–F37: TLS that is missing, false or broken, and servers that do not speak the protocol."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme

from campaign.kit import Arena, eventually, row
from campaign.rows_smtp import account, attempts, back_to_work, healthy_meanwhile, two_accounts
from campaign.server import OK, Peer

LOGIN = {"auth": "auto", "username": "post", "password": "canary-password"}


class Authority:
    """A certificate authority, and one that nobody trusts."""

    def __init__(self, arena: Arena) -> None:
        self.ca, self.stranger = trustme.CA(), trustme.CA()
        self.file = str(arena.folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def context(self, which: str = "good") -> ssl.SSLContext:
        """A server's context: good, expired, other_name or self_signed."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        past = datetime.now(UTC) - timedelta(days=1)
        issuer = self.stranger if which == "self_signed" else self.ca
        name = "elsewhere.example" if which == "other_name" else "localhost"
        dates: dict[str, Any] = (
            {"not_before": past - timedelta(days=9), "not_after": past} if which == "expired" else {}
        )
        issuer.issue_cert(name, **dates).configure_cert(made)
        return made


def tls(authority: Authority) -> dict[str, Any]:
    """Options of an account that requires STARTTLS and logs in."""
    return {
        "host": "localhost", "security": "starttls", "ca_file": authority.file,
        "allow_hosts": ["127.0.0.1", "localhost"], **LOGIN,
    }  # fmt: skip


@row(
    "F35",
    "STARTTLS refused / stripped / broken / glued plaintext",
    "nothing sent, no credentials, retry; injected text never used",
)
def no_tls(arena: Arena) -> None:
    authority = Authority(arena)
    usual = ("PIPELINING", "STARTTLS", "AUTH PLAIN LOGIN")

    def glued(peer: Peer, line: str) -> str | None:
        peer.raw(b"220 go\r\n250-injected\r\n250-AUTH PLAIN\r\n250 OK\r\n")
        peer.held = b""
        peer.encrypt(peer.server.context)  # type: ignore[arg-type]
        return None

    def garbled(peer: Peer, line: str) -> str | None:
        peer.raw(b"220 go\r\n" + b"\x00this is no handshake" * 20)
        peer.leave()
        return None

    bad = arena.server(extensions=usual, context=authority.context(), AUTH="235 2.7.0 welcome")
    good = two_accounts(arena, bad, **tls(authority))
    ways: dict[str, Any] = {"refused": "454 4.7.0 not now", "stripped": None, "broken": garbled, "glued": glued}
    ids: list[str] = []
    for name, answer in ways.items():
        bad.extensions = usual if answer else ("PIPELINING", "AUTH PLAIN LOGIN")
        bad.answers["STARTTLS"] = answer or "500 what?"
        mark = len(bad.lines)
        before = attempts(arena, ids)
        ids += arena.burst(1, account="bad")
        arena.home.store.redis.zadd(arena.home.store.key("parked"), {"bad": 1}, xx=True)
        arena.bring_forward(ids)
        tried = eventually(lambda before=before: attempts(arena, ids) > before, 15)  # type: ignore[misc]
        said = [line for _, line in bad.lines[mark:]]
        arena.check(f"{name}: tried", tried)
        arena.check(f"{name}: no credentials, no mail", not any(line.startswith(("AUTH", "MAIL")) for line in said))
        arena.check(f"{name}: it waits", set(arena.count(ids)) <= {"waiting", "leased"})
    causes = {arena.status(one).cause for one in ids}
    arena.notes.append(f"causes {sorted(causes)}")
    healthy_meanwhile(arena, good)
    bad.extensions = usual
    bad.answers["STARTTLS"] = "220 go"
    back_to_work(arena, ids)


@row("F36", "certificate expired / other name / self-signed", "nothing sent; the words say which; told once")
def false_certificate(arena: Arena) -> None:
    authority = Authority(arena)
    bad = arena.server(
        extensions=("PIPELINING", "STARTTLS", "AUTH PLAIN LOGIN"), STARTTLS="220 go", AUTH="235 2.7.0 hi"
    )
    good = two_accounts(arena, bad, **tls(authority))
    ids: list[str] = []
    for which in ("expired", "other_name", "self_signed"):
        bad.context = authority.context(which)
        mark = len(bad.lines)
        before = attempts(arena, ids)
        ids += arena.burst(1, account="bad")
        arena.home.store.redis.zadd(arena.home.store.key("parked"), {"bad": 1}, xx=True)
        arena.bring_forward(ids)
        arena.check(f"{which}: tried", eventually(lambda before=before: attempts(arena, ids) > before, 15))  # type: ignore[misc]
        said = [line for _, line in bad.lines[mark:]]
        arena.check(f"{which}: no credentials, no mail", not any(line.startswith(("AUTH", "MAIL")) for line in said))
        told = {"expired": "expired", "other_name": "other name", "self_signed": "self-signed"}[which]

        def words() -> str:
            return " ".join(arena.status(one).words for one in ids) + str(account(arena).get("words"))

        said_so = eventually(lambda told=told, words=words: told in words() or "issuer" in words(), 10)  # type: ignore[misc]
        arena.check(f"{which}: the words say so ({words()[:200]})", said_so)
    notices = arena.log().count('"account.parked"')
    arena.check(f"told once ({notices})", notices <= 3)
    healthy_meanwhile(arena, good)
    bad.context = authority.context()
    back_to_work(arena, ids)


@row("F37", "garbage, wrong codes, early replies, half-closed", "`protocol`; the worker lives; no desynchronised sent")
def garbage(arena: Arena) -> None:
    def rubbish(peer: Peer, line: str) -> None:
        peer.raw(bytes(arena.random.randrange(256) for _ in range(200)) + b"\r\n")

    def early(peer: Peer, line: str) -> str:
        return "250 ok\n250 ok\n250 ok\n250 ok\n354 go\n250 taken"

    def half(peer: Peer, line: str) -> None:
        import socket

        peer.say("250 ok")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.wait_until_gone()

    bad = arena.server()
    good = two_accounts(arena, bad)
    ids: list[str] = []
    ways: list[tuple[str, Any]] = [
        ("BANNER", rubbish), ("BANNER", early), ("EHLO", "999 what"), ("EHLO", rubbish), ("MAIL", early),
        ("RCPT", rubbish), ("MAIL", "354 go"), ("RCPT", "334 go"), ("DATA", "250 no, thanks"), ("DATA", early),
        ("MAIL", half), ("DOT", "354 more"),
    ]  # fmt: skip
    for verb, answer in ways:
        bad.answers[verb] = answer
        before = attempts(arena, ids)
        ids += arena.burst(2, account="bad")
        arena.home.store.redis.zadd(arena.home.store.key("parked"), {"bad": 1}, xx=True)
        eventually(lambda before=before: attempts(arena, ids) > before, 10)  # type: ignore[misc]
        bad.answers.pop(verb)
    time.sleep(0.3)
    wrong = [one for one, state in arena.states(ids).items() if state == "sent" and not arena.copies()[one]]
    arena.check(f"no desynchronised sent ({len(wrong)})", not wrong)
    arena.check("the worker lives", arena.workers[0].poll() is None)
    arena.check("no 4 kB of rubbish in the words", all(len(arena.status(one).words) <= 300 for one in ids))
    healthy_meanwhile(arena, good)
    arena.all_end(1, ids)
    left = [one for one, state in arena.states(ids).items() if state == "waiting"]
    back_to_work(arena, left)
    failed = arena.count(ids)["failed"]
    arena.notes.append(f"{failed} of {len(ids)} failed by a 5xx that was no SMTP")
    arena.allowed_extra = arena.unknowns()


assert OK
