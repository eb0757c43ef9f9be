"""F35–F37: TLS that is missing, false or broken, and servers that do not speak the protocol."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme

from campaign.kit import Arena, eventually, row
from campaign.rows_smtp import account, attempts, back_to_work, causes, healthy_meanwhile, look_again, two_accounts
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
        look_again(arena, ids)
        tried = eventually(lambda before=before: attempts(arena, ids) > before, 15)  # type: ignore[misc]
        said = [line for _, line in bad.lines[mark:]]
        arena.check(f"{name}: tried", tried)
        arena.check(f"{name}: no credentials, no mail", not any(line.startswith(("AUTH", "MAIL")) for line in said))
        arena.check(f"{name}: it waits", eventually(lambda: set(arena.count(ids)) == {"waiting"}, 5))
        arena.check(f"{name}: tls_unavailable ({causes(arena, ids)})", causes(arena, ids) == {"tls_unavailable"})
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
        look_again(arena, ids)
        arena.check(f"{which}: tried", eventually(lambda before=before: attempts(arena, ids) > before, 15))  # type: ignore[misc]
        said = [line for _, line in bad.lines[mark:]]
        arena.check(f"{which}: no credentials, no mail", not any(line.startswith(("AUTH", "MAIL")) for line in said))
        cause = {
            "expired": "certificate_expired", "other_name": "certificate_other_name",
            "self_signed": "certificate_not_trusted",
        }[which]  # fmt: skip
        parked = eventually(lambda cause=cause: account(arena).get("reason") == cause, 10)  # type: ignore[misc]
        arena.check(f"{which}: the account is parked as {cause} ({account(arena).get('reason')})", parked)
        arena.check(f"{which}: its mail says so", eventually(lambda cause=cause: cause in causes(arena, ids), 5))  # type: ignore[misc]
        for _ in range(2):  # the probes of the next hour find the same
            again = attempts(arena, ids)
            look_again(arena, ids)
            eventually(lambda again=again: attempts(arena, ids) > again, 10)  # type: ignore[misc]
        until = float(account(arena).get("until", 0)) - time.time()
        arena.check(
            f"{which}: and looks again in {until:.0f} s", eventually(lambda: account(arena)["state"] == "parked", 5)
        )
        notices = sum(f'"{cause}"' in line for line in arena.log().splitlines() if '"account.parked"' in line)
        arena.check(f"{which}: the owner is told once ({notices})", notices == 1)
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
    ways: list[tuple[str, Any, str]] = [
        ("BANNER", rubbish, "protocol"), ("BANNER", early, "protocol"), ("EHLO", "999 what", "protocol"),
        ("EHLO", rubbish, "protocol"), ("MAIL", early, "protocol"), ("RCPT", rubbish, "protocol"),
        ("MAIL", "354 go", "protocol"), ("RCPT", "334 go", "protocol"), ("DATA", "250 no, thanks", "protocol"),
        ("DATA", early, "protocol"), ("MAIL", half, "temporary"), ("DOT", "354 more", "outcome_unknown"),
    ]  # fmt: skip
    for verb, answer, cause in ways:
        bad.answers[verb] = answer
        now = arena.burst(2, account="bad")
        ids += now

        def tried(now: list[str] = now) -> bool:
            look_again(arena, [])
            return bool(causes(arena, now))

        name = answer if isinstance(answer, str) else answer.__name__
        found = eventually(tried, 10) and causes(arena, now)
        arena.check(f"{verb} {name}: {cause} ({found})", found == {cause})
        bad.answers.pop(verb)
        left = [one for one, state in arena.states(ids).items() if state == "waiting"]
        if left:
            back_to_work(arena, left)
    wrong = [one for one, state in arena.states(ids).items() if state == "sent" and not arena.copies()[one]]
    arena.check(f"no desynchronised sent ({len(wrong)})", not wrong)
    arena.check("the worker lives", arena.workers[0].poll() is None)
    arena.check("no 4 kB of rubbish in the words", all(len(arena.status(one).words) <= 300 for one in ids))
    healthy_meanwhile(arena, good)
    arena.all_end(10, ids)
    arena.check(f"nothing failed for good ({dict(arena.count(ids))})", arena.count(ids) == {"sent": len(ids)})
    arena.allowed_extra = arena.unknowns()


assert OK
