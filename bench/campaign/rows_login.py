"""F38–F41: passwords that are refused, tokens that end, and a token service in trouble."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from campaign.kit import Arena, eventually, row, smtp
from campaign.rows_smtp import account, causes, healthy_meanwhile, two_accounts
from campaign.rows_wire import Authority
from campaign.server import MESSAGE_ID, Taken
from tests.drivers.oauth.services import Microsoft, TokenService
from tests.drivers.oauth.web import Reply, endless, half, json_reply, silence


@row("F38", "AUTH 535", "the account stops at once: <= 3 tries/h; all its mail waits, others flow")
def wrong_password(arena: Arena) -> None:
    login = {"auth": "auto", "username": "post", "password": "canary-password", "allow_plain_login": True}
    bad = arena.server(extensions=("AUTH PLAIN LOGIN",), AUTH="535 5.7.8 authentication failed")
    good = two_accounts(arena, bad, **login)
    arena.worker(machine="two")
    ids = arena.burst(60, account="bad")
    healthy_meanwhile(arena, good)
    arena.check("parked", eventually(lambda: account(arena)["state"] in ("parked", "needs_login"), 10))
    time.sleep(2.0)
    tries = len(bad.verbs("AUTH"))
    arena.check(f"<= 3 tries in the first minute ({tries})", tries <= 3)
    until = float(account(arena).get("until", 0)) - time.time()
    arena.check(f"and the next one in {until:.0f} s", until >= 1000)
    arena.check("all its mail waits", arena.count(ids) == {"waiting": 60})
    reason = account(arena).get("reason")
    arena.check(f"for authentication_failed ({reason})", reason == "authentication_failed")
    arena.check("told once", arena.log().count('"account.parked"') == 1)
    arena.may_wait = True


@contextmanager
def microsoft(arena: Arena, **options: Any) -> Iterator[tuple[Microsoft, Any]]:
    """An Entra and a Graph of our own, a healthy SMTP account beside, and two workers."""
    authority = Authority(arena)
    good = arena.server()
    with Microsoft(authority.context(), authority.file).running() as cloud:
        settings = cloud.settings(**options)
        bad = {
            "driver": "microsoft", "sender": {"address": "office@contoso.example"}, "options": settings,
            "limits": {"max_connections": 16, "per_second": 500, "per_minute": 30_000},
        }  # fmt: skip
        arena.house(arena.redis(fsync="everysec").url, main=smtp(good.port), bad=bad)
        log = arena.server(listening=False)

        def count() -> None:
            """What Graph took, as a server's log."""
            for mail in cloud.graph.mails[len(log.log) :]:
                found = MESSAGE_ID.search(mail)
                log.log.append(Taken(time.time(), found[1].decode() if found else "?", (), "202"))

        arena.worker(threads=8)
        yield cloud, (good, count)


def drain(arena: Arena, ids: list[str], seconds: float = 30) -> bool:
    """Retries come now, until all is sent."""

    def done() -> bool:
        keys, store = arena.home.store.redis, arena.home.store
        if keys.zscore(store.key("parked"), "bad") is not None:
            keys.zadd(store.key("parked"), {"bad": 1}, xx=True)
        arena.bring_forward(ids)
        return set(arena.count(ids)) == {"sent"}

    found = eventually(done, seconds)
    return arena.check(f"all sent in the end ({dict(arena.count(ids))})", found)


@row("F39", "token expires in mid-run", "ONE refresh for 100 waiting sends; D 0")
def token_expires(arena: Arena) -> None:
    with microsoft(arena) as (cloud, (_, count)):
        ids = arena.burst(30, account="bad")
        eventually(lambda: set(arena.count(ids)) == {"sent"}, 20)
        before = len(cloud.entra.forms)
        cloud.graph.refused.add(f"canary-token-{before}")
        ids += arena.burst(100, account="bad")
        drain(arena, ids)
        asked = len(cloud.entra.forms) - before
        arena.check(f"one refresh ({asked})", asked == 1)
        count()


@row(
    "F40",
    "token endpoint 500 / 429 + Retry-After / hang / half JSON / endless",
    "obeys Retry-After; 10 s and 64 kB; mail waits",
)
def token_service_down(arena: Arena) -> None:
    with microsoft(arena) as (cloud, (good, count)):
        answers: dict[str, Reply] = {
            "500": Reply(500, b"oops"), "half JSON": half({"access_token": "x" * 100}), "hang": silence(),
            "endless": endless(), "429": json_reply({"error": "slow"}, 429, Retry_After="7"),
        }  # fmt: skip
        ids: list[str] = []
        for name, answer in answers.items():
            cloud.entra.always = answer
            asked = len(cloud.entra.forms)
            ids += arena.burst(2, account="bad")
            arena.home.store.redis.zadd(arena.home.store.key("parked"), {"bad": 1}, xx=True)
            arena.bring_forward(ids)
            eventually(lambda asked=asked: len(cloud.entra.forms) > asked, 12)  # type: ignore[misc]
            began = time.time()
            told = eventually(lambda: set(arena.count(ids)) == {"waiting"} and len(causes(arena, ids)) > 0, 14)
            arena.check(f"{name}: the mail waits again", told)
            arena.check(f"{name}: within 10 s", time.time() - began < 11.5)
            arena.check(f"{name}: cause ({causes(arena, ids)})", causes(arena, ids) == {"oauth_unavailable"})
        cloud.entra.always = None
        asked = len(cloud.entra.forms)
        healthy_meanwhile(arena, good)
        # Nobody brings anything forward here: the service asked for 7 s of silence, and gets them.
        eventually(lambda: len(cloud.entra.forms) > asked, 15)
        wait = cloud.entra.asked_at[asked] - cloud.entra.asked_at[asked - 1]
        arena.check(f"429: the next try after {wait:.1f} s of 7", 6.3 <= wait <= 7.7)
        drain(arena, ids)
        count()


@row("F41", "token revoked (invalid_grant)", "account `needs_login`; mail waits until its deadline; told once")
def revoked(arena: Arena) -> None:
    authority = Authority(arena)
    good = arena.server()
    mailbox = arena.server(extensions=("PIPELINING", "8BITMIME", "AUTH XOAUTH2"), AUTH="235 2.7.0 welcome")
    service = TokenService(authority.context())
    with service.web:
        options = {
            "mailbox": "office@school.example", "token_url": f"{service.url}/token", "ca_file": authority.file,
            "allow_hosts": ["localhost", "127.0.0.1"], "smtp_host": "127.0.0.1", "smtp_port": mailbox.port,
            "smtp_security": "none", "client_id": "app", "client_secret": "secret", "refresh_token": "refresh",
        }  # fmt: skip
        bad = {"driver": "google", "sender": {"address": "office@school.example"}, "options": options}
        arena.house(arena.redis(fsync="everysec").url, main=smtp(good.port), bad=bad)
        arena.worker()
        sent = arena.burst(5, account="bad")
        arena.all_sent(20, sent)
        service.always = json_reply({"error": "invalid_grant"}, 400)
        mailbox.answers["AUTH"] = "535 5.7.8 BadCredentials"
        mailbox.answers["MAIL"] = "421 4.7.0 session over"  # the open session ends too
        ids = arena.burst(20, account="bad")
        time.sleep(0.5)
        mailbox.answers.pop("MAIL")

        def waits_for_a_person() -> bool:
            arena.bring_forward(ids)
            return account(arena)["state"] == "needs_login"

        arena.check("the account waits for a person", eventually(waits_for_a_person, 20))
        arena.check("its mail waits", eventually(lambda: arena.count(ids) == {"waiting": 20}, 10))
        asked = len(service.forms)
        healthy_meanwhile(arena, good)
        arena.check("nobody asks again", len(service.forms) == asked)
        arena.check("told once", arena.log().count('"account.parked"') == 1)
        arena.may_wait = True
