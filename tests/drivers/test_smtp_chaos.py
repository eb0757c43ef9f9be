"""Whatever a server does at whatever moment: no mail is called sent that was not taken, and none is called safe to send
again that may have been."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from postier.schemas.errors import DeliveryError, OutcomeUnknown
from postier.schemas.receipt import Receipt
from tests.drivers.kit import LOCK_STEP, PIPELINING, Answer, Peer, Script, ScriptedServer, mail, opened, polite

REFUSALS = ("451 4.3.0 later", "550 5.1.1 no such user", "554 5.7.1 spam", "421 4.3.2 closing", "452 4.5.3 too many")
NONSENSE = ("what?", "250-open\n251 end", "235 welcome", "354 too early", "220 again", "250 Ok\n250 Ok")


def chaotic(chance: random.Random, extensions: tuple[str, ...], taken: Counter[str]) -> Script:
    """A server that now and then refuses, talks nonsense, or goes; `taken` counts the mails it said 250 to."""

    def maybe(usual: str) -> Answer:
        def answer(peer: Peer, line: str) -> str | None:
            dice = chance.random()
            if dice < 0.08:
                return chance.choice(REFUSALS)
            if dice < 0.11:
                return chance.choice(NONSENSE)
            if dice < 0.14:
                peer.leave()
            if dice < 0.16:
                peer.reset()
            return usual

        return answer

    body = maybe("250 2.0.0 Ok: queued as 1A2B3C")

    def verdict(peer: Peer, line: str) -> str | None:
        subject = re.search(rb"Sample (\d+)\r\n", peer.last_body)
        reply = body(peer, line) if callable(body) else body
        if subject and reply and reply.startswith("250 "):
            taken[f"d{int(subject[1])}"] += 1
        return reply

    return polite(
        extensions=extensions,
        MAIL=maybe("250 2.1.0 Ok"),
        RCPT=maybe("250 2.1.5 Ok"),
        DATA=maybe("354 go on"),
        RSET=maybe("250 2.0.0 Ok"),
        DOT=verdict,
    )


@pytest.mark.parametrize("extensions", [PIPELINING, LOCK_STEP], ids=["pipelining", "lock_step"])
@pytest.mark.parametrize("seed", range(25))
def test_every_result_agrees_with_what_the_server_did(extensions: tuple[str, ...], seed: int) -> None:
    taken: Counter[str] = Counter()
    handed: Counter[str] = Counter()
    emails = [
        mail(n, *(f"r{i}@example.com" for i in range(1 + n % 3)), handing_over=lambda n=n: handed.update([f"d{n}"]))
        for n in range(30)
    ]

    script = chaotic(random.Random(seed), extensions, taken)
    with ScriptedServer(script) as server, opened(server.port, final_timeout=1.0, timeout_ms=500) as driver:
        answered = list(driver.converse(iter(emails)))

    assert [email.delivery_id for email, _ in answered] == [email.delivery_id for email in emails]
    for email, result in answered:
        name = email.delivery_id
        assert taken[name] <= 1
        if isinstance(result, Receipt):
            assert (taken[name], handed[name]) == (1, 1)
        elif isinstance(result, OutcomeUnknown):
            assert handed[name] == 1
        else:
            assert isinstance(result, DeliveryError)
            assert result.stage
            assert taken[name] == 0
