"""F22–F34: SMTP servers that are gone, hang, stutter, flood, hesitate or refuse."""

from __future__ import annotations

import time
from typing import Any

from campaign.kit import Arena, contact_form, data_change, eventually, memory, reset_link, row, smtp, somebody
from campaign.server import OK, Gone, Peer, Server, first, pause, slowly
from postier.schemas.events import DataChange
from postier.schemas.events.data_change import Change


def two_accounts(arena: Arena, bad: Server, *, fault: str = "", **options: Any) -> Server:
    """A healthy account beside the one in trouble; `options` are the latter's."""
    good = arena.server()
    redis = arena.redis(fsync="everysec")
    arena.house(
        redis.url,
        main=smtp(good.port),
        bad=smtp(bad.port, options={"auth": "none", "timeout_ms": 2000, **options}, limits={"max_connections": 2}),
    )
    arena.worker(fault=fault)
    return good


def healthy_meanwhile(arena: Arena, good: Server, count: int = 40) -> None:
    """Mail of the healthy account, one by one: its p95 must stay small."""
    ids = []
    for _ in range(count):
        ids += arena.publish(reset_link())
        time.sleep(0.02)
    arena.all_sent(10, ids)
    waits = sorted(taken.at - arena.accepted[taken.id] for taken in good.log if taken.id in ids)
    p95 = waits[int(0.95 * len(waits))] if waits else 99.0
    arena.check(f"the healthy account's p95 stays under 1 s ({p95 * 1000:.0f} ms)", p95 < 1.0)


def account(arena: Arena) -> dict[str, Any]:
    """The running state of the account in trouble."""
    return arena.home.queries.accounts()["bad"]


def attempts(arena: Arena, ids: list[str]) -> int:
    """How many attempts these took, deferred ones too."""
    return sum(arena.status(one).attempt + int(arena.status(one).facts.get("deferred", 0)) for one in ids)


def causes(arena: Arena, ids: list[str]) -> set[str]:
    """Why these wait or ended, of those that were tried: what a first conversation held behind is `withdrawn`."""
    return {arena.status(one).cause for one in ids} - {"", "withdrawn"}


def look_again(arena: Arena, ids: list[str]) -> None:
    """Let the breaker's probe and the retries come now."""
    arena.home.store.redis.zadd(arena.home.store.key("parked"), {"bad": 1}, xx=True)
    arena.bring_forward(ids)


def ended_within(arena: Arena, server: Server, seconds: float) -> None:
    """Every connection was over in time."""
    eventually(lambda: len(server.spans) >= len(server.connected), seconds + 2)
    longest = max(server.spans, default=0.0)
    arena.check(f"no connection lasts longer than {seconds:g} s ({longest:.1f} s)", server.spans and longest <= seconds)


def back_to_work(arena: Arena, ids: list[str], seconds: float = 40) -> None:
    """Retries and the probe come now, and everything leaves."""
    keys, store = arena.home.store.redis, arena.home.store

    def nudge() -> bool:
        if keys.zscore(store.key("parked"), "bad") is not None:
            keys.zadd(store.key("parked"), {"bad": 1}, xx=True)
        arena.bring_forward(ids)
        return set(arena.count(ids)) == {"sent"}

    eventually(nudge, seconds)
    arena.check(f"all leave once the server is well ({dict(arena.count(ids))})", arena.count(ids) == {"sent": len(ids)})


@row("F22", "SMTP connection refused", "retry with backoff; the breaker opens in <= 5 tries; cause `unreachable`")
def refused(arena: Arena) -> None:
    bad = arena.server(listening=False)
    good = two_accounts(arena, bad)
    ids = arena.burst(20, account="bad")
    arena.check("the breaker opens", eventually(lambda: account(arena)["state"] == "parked", 30))
    tries = attempts(arena, ids)
    arena.check(f"in <= 5 tries ({tries})", tries <= 5)
    arena.check("for unreachable", account(arena)["reason"] == "unreachable")
    arena.check(f"cause unreachable ({causes(arena, ids)})", causes(arena, ids) == {"unreachable"})
    healthy_meanwhile(arena, good)
    bad.listen()
    back_to_work(arena, ids)


@row("F23", "accepts, never banners", "released at the timeout; breaker; other accounts unharmed")
def silent(arena: Arena) -> None:
    def nothing(peer: Peer, line: str) -> None:
        peer.wait_until_gone()

    bad = arena.server(BANNER=nothing)
    good = two_accounts(arena, bad)
    ids = arena.burst(20, account="bad")
    healthy_meanwhile(arena, good)
    arena.notes.append("timeout 30 s run as 2 s")
    arena.check("the breaker opens", eventually(lambda: account(arena)["state"] == "parked", 30))
    tries = attempts(arena, ids)
    arena.check(f"in <= 5 tries ({tries})", tries <= 5)
    ended_within(arena, bad, 3)
    arena.check(f"cause too_slow ({causes(arena, ids)})", causes(arena, ids) == {"too_slow"})
    arena.check(f"within the account's cap ({bad.most_open})", bad.most_open <= 2)
    bad.answers.pop("BANNER")
    back_to_work(arena, ids)


@row("F24", "tarpit, 20 s a reply", "ends by the total deadline; slots of that account <= its cap")
def tarpit(arena: Arena) -> None:
    delay = arena.scaled(20, 1.5)
    bad = arena.server(
        extensions=(), MAIL=slowly(delay, "250 ok"), RCPT=slowly(delay, "250 ok"), DATA=slowly(delay, "354 go")
    )
    good = two_accounts(arena, bad, total_deadline=2 * delay, timeout_ms=60_000)
    ids = arena.burst(6, account="bad")
    healthy_meanwhile(arena, good)
    arena.check(
        "the first conversation ends",
        eventually(lambda: attempts(arena, ids) > 0 and len(bad.connected) > 1, 6 * delay),
    )
    arena.check("nothing is sent", not bad.log)
    told = eventually(lambda: causes(arena, ids), 3 * delay)
    arena.check(f"cause too_slow ({causes(arena, ids)})", told and causes(arena, ids) == {"too_slow"})
    arena.check(f"slots <= cap ({bad.most_open})", bad.most_open <= 2)
    ended_within(arena, bad, 2 * delay + 0.5)
    for verb in ("MAIL", "RCPT", "DATA"):
        bad.answers.pop(verb)
    back_to_work(arena, ids)


def drip(reply: str) -> Any:
    """A reply at one octet a second."""

    def answer(peer: Peer, line: str) -> None:
        for octet in reply.encode():
            peer.raw(bytes((octet,)))
            pause(peer, 1.0)

    return answer


@row("F25", "1 byte/s replies", "cut by the total deadline, not per read; `too_slow`")
def dripping(arena: Arena) -> None:
    bad = arena.server(extensions=(), MAIL=drip("250 2.1.0 the sender is quite all right, go on\r\n"))
    good = two_accounts(arena, bad, total_deadline=4, timeout_ms=20_000)
    arena.notes.append("total deadline 4 s")
    ids = arena.burst(2, account="bad")
    healthy_meanwhile(arena, good)
    arena.check("it ends", eventually(lambda: causes(arena, ids), 20))
    arena.check(f"cause too_slow ({causes(arena, ids)})", causes(arena, ids) == {"too_slow"})
    ended_within(arena, bad, 4 + 1)
    bad.answers.pop("MAIL")
    back_to_work(arena, ids)


@row("F26", "256 MiB multi-line / endless line reply", "cut at 64 kB; RSS growth < 16 MiB; `protocol`")
def flood(arena: Arena) -> None:
    def lines(peer: Peer, line: str) -> None:
        for _ in range(256):
            peer.raw(b"250-" + b"x" * 1000 + b"\r\n" + (b"250-y\r\n" * 150_000)[: 2**20 - 1006])

    def one_line(peer: Peer, line: str) -> None:
        for _ in range(256):
            peer.raw(b"2" * 2**20)

    bad = arena.server(EHLO=lines)
    good = two_accounts(arena, bad)
    arena.publish(reset_link())
    arena.all_sent(10)
    before = memory(arena.workers[0].pid)
    ids = arena.burst(2, account="bad")
    for name, answer in (("many lines", lines), ("one line", one_line)):
        bad.answers["EHLO"] = answer
        before_this = len(bad.spans)
        look_again(arena, ids)
        arena.check(f"{name}: it ends", eventually(lambda before=before_this: len(bad.spans) > before, 15))  # type: ignore[misc]
        told = eventually(lambda: causes(arena, ids), 5)
        arena.check(f"{name}: cause protocol ({causes(arena, ids)})", told and causes(arena, ids) == {"protocol"})
    grown = memory(arena.workers[0].pid) - before
    arena.check(f"RSS growth < 16 MiB ({grown:.1f})", grown < 16)
    healthy_meanwhile(arena, good)
    bad.answers.pop("EHLO")
    back_to_work(arena, ids)


@row("F27", "421 at banner, EHLO, RCPT, second message", "retry, D 0, connection dropped, later recipients not failed")
def closing(arena: Arena) -> None:
    bad = arena.server()
    two_accounts(arena, bad)
    for verb, usual in (("BANNER", "220 hello"), ("EHLO", None), ("RCPT", "250 ok")):
        bad.answers[verb] = "421 4.3.2 closing"
        ids = arena.burst(4, account="bad")
        arena.check(f"{verb}: a retry", eventually(lambda ids=ids: attempts(arena, ids) > 0, 15))
        if usual:
            bad.answers[verb] = usual
        else:
            bad.answers.pop(verb)
        back_to_work(arena, ids)

    def second(peer: Peer, line: str) -> str:
        return "421 4.7.0 one mail a connection" if peer.mails else "250 2.1.0 ok"

    bad.answers["MAIL"] = second
    ids = arena.burst(8, account="bad")
    back_to_work(arena, ids)
    # Several people in a mail, and the server leaves at the second: nobody of them has failed.
    bad.answers.pop("MAIL")
    named: list[str] = []

    def second_person(peer: Peer, line: str) -> str:
        named.append(line)
        return "421 4.3.2 closing" if len(named) == 2 else "250 2.1.5 ok"

    bad.answers["RCPT"] = second_person
    people = [somebody() for _ in range(3)]
    packed = arena.publish(data_change(*people).model_copy(update={"together": True}), account="bad")
    arena.addressees |= {person.address: one for person, one in zip(people, packed, strict=True)}
    arena.check("packet: a retry", eventually(lambda: attempts(arena, packed) > 0 and len(named) >= 2, 15))
    back_to_work(arena, packed)
    arena.check("none failed", set(arena.count()) == {"sent"})
    arena.check(f"none is shown as unknown ({arena.unknowns()})", arena.unknowns() == 0)


@row("F28", "FIN or RST inside DATA", "retry, D 0 (the body is incomplete)")
def cut_in_data(arena: Arena) -> None:
    cuts: list[bool] = []

    def cut(peer: Peer, line: str) -> None:
        peer.say("354 go on")
        while len(peer.held) < 4_000 and b"\r\n.\r\n" not in peer.held:
            peer.receive()
        cuts.append(b"\r\n.\r\n" not in peer.held)
        arena.random.choice((peer.reset, peer.leave))()

    def some(peer: Peer, line: str) -> str | None:
        return cut(peer, line) if arena.random.random() < 0.5 else "354 go on"

    # Large mails over a narrow path: the sender's kernel still holds most of the body when the cut comes, so that the
    # sender knows it incomplete. (A small body is with the kernel as a whole: then nobody can know, and it is `unknown`
    # as in F29.)
    bad = arena.server(DATA=cut, narrow=True)
    two_accounts(arena, bad, fault="narrow:send")
    ids = [one for _ in range(4) for one in arena.publish(large(), account="bad")]
    hold = arena.publish(contact_form("été à Nîmes où ça va " * 900), account="bad")
    arena.check("cut inside the body", eventually(lambda: cuts, 15))
    bad.answers["DATA"] = some
    ids += [one for _ in range(8) for one in arena.publish(large(), account="bad")]
    eventually(lambda: look_again(arena, ids + hold) or len(cuts) >= 4, 15)
    arena.check(f"every cut body was incomplete ({len(cuts)} cuts)", all(cuts) and len(cuts) >= 4)
    arena.check(f"none is shown as unknown ({arena.unknowns()})", arena.unknowns() == 0)
    arena.check("a mail that may leave once alone is tried again too", arena.count(hold)["unknown"] == 0)
    bad.answers.pop("DATA")
    back_to_work(arena, ids + hold)


def large() -> DataChange:
    """A mail of some 150 kB."""
    change = Change(field="note", label="Note", old="a" * 900, new="b" * 900)
    return data_change().model_copy(update={"changes": (change,) * 40})


@row("F29", "body taken, closed before 250; or 250 later than our wait", "`unknown`; D <= 1")
def verdict_lost(arena: Arena) -> None:
    def close(peer: Peer, line: str) -> str:
        peer.leave()
        raise Gone

    bad = arena.server(DOT=first(3, close, first(2, slowly(4.0))))
    two_accounts(arena, bad, final_timeout=2.0)
    ids = arena.burst(6, account="bad")
    held = arena.publish(contact_form(), account="bad")
    arena.check("unknown outcomes are shown", eventually(lambda: arena.unknowns() >= 3, 30))
    back_to_work(arena, ids)
    arena.check("held mail ends", arena.all_end(20, held))
    arena.allowed_extra = arena.unknowns()
    arena.check("held mail is on the wire once at most", arena.copies()[held[0]] <= 1)


@row("F30", "greylisting 451", "sent on a later try >= 60 s apart; not shown as failure")
def greylisted(arena: Arena) -> None:
    seen: dict[str, float] = {}

    def grey(peer: Peer, line: str) -> str:
        if line in seen:
            return "250 2.1.5 ok"
        seen[line] = time.time()
        return "451 4.7.1 " + arena.random.choice((
            "Greylisting in action, please come back in 60 seconds", "Greylisted, please try again later",
        ))  # fmt: skip

    bad = arena.server(RCPT=grey)
    two_accounts(arena, bad)
    ids = arena.burst(5, account="bad") + arena.burst(5, data_change, account="bad")
    eventually(lambda: len(seen) == 10, 20)
    eventually(lambda: set(arena.count(ids)) == {"waiting"}, 5)
    waits = [(arena.status(one).due or 0) - arena.status(one).history[-1]["at"] for one in ids]
    arena.check(f"the next try is >= 60 s later ({min(waits):.1f} s)", min(waits) >= 59.9)
    arena.check("nothing is shown as failure", set(arena.count()) == {"waiting"})
    back_to_work(arena, ids)


@row("F31", "4xx for ever", "backoff with jitter until the deadline; then `expired` with the last reply")
def never(arena: Arena) -> None:
    from datetime import timedelta

    bad = arena.server(RCPT="451 4.3.0 never today")
    two_accounts(arena, bad)
    # A link may be published when it lasts a minute; the ledger's own deadline is moved to where the row ends.
    ids = arena.burst(5, lambda: reset_link(lasts=timedelta(minutes=10)), account="bad")
    arena.check("retried", eventually(lambda: all(arena.status(one).due for one in ids), 20))
    for attempt in range(2, 6):

        def reached(attempt: int = attempt) -> bool:
            early = [one for one in ids if arena.status(one).attempt < attempt]
            look_again(arena, early)
            return not early

        arena.check(f"attempt {attempt}", eventually(reached, 25))
    pauses = {
        line["attempt"]: [
            other["next_in"] for one in ids for other in arena.status(one).history
            if other["what"] == "retried" and other["attempt"] == line["attempt"]
        ]
        for line in arena.status(ids[0]).history if line["what"] == "retried"
    }  # fmt: skip
    every = [pause for row in pauses.values() for pause in row]
    arena.check(
        "pauses are at most 15 s, doubled with every attempt, 600 s at the end",
        len(pauses) >= 4 and all(max(row) <= min(600, 15 * 2 ** (number - 1)) for number, row in pauses.items()),
    )
    arena.check("with jitter", len(set(every)) > 0.8 * len(every))
    arena.check("and they grow", max(pauses[max(pauses)]) > 15)
    keys, store = arena.home.store.redis, arena.home.store
    for one in ids:
        end = store.now() + 2_000_000
        keys.hset(store.key(f"delivery:{one}"), "deadline", end)
        keys.zadd(store.key("deadline"), {one: end})
    arena.check("expired at the deadline", eventually(lambda: set(arena.count(ids)) == {"expired"}, 20))
    for one in ids:
        status = arena.status(one)
        if not arena.check("with the last reply", status.facts.get("code") == 451 and "never today" in status.words):
            break


def packet(arena: Arena, server: Server) -> list[str]:
    """One mail to three recipients."""
    limits = {"max_connections": 2, "max_recipients": 10}
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port, limits=limits))
    arena.worker()
    people = [somebody() for _ in range(3)]
    ids = arena.publish(data_change(*people).model_copy(update={"together": True}))
    arena.addressees |= {person.address: one for person, one in zip(people, ids, strict=True)}
    return ids


@row("F32", "5xx for one of three recipients", "two sent once, one refused; no resend to the two")
def one_refused(arena: Arena) -> None:
    rejected: list[str] = []

    def refuse(peer: Peer, line: str) -> str:
        rejected[:] = rejected or [line]
        return "550 5.1.1 no such user" if line == rejected[0] else "250 2.1.5 ok"

    server = arena.server(RCPT=refuse)
    ids = packet(arena, server)
    arena.check("all end", arena.all_end(20))
    states = sorted(arena.count(ids).elements())
    arena.check(f"two sent, one failed ({states})", states == ["failed", "sent", "sent"])
    (failed,) = [one for one, state in arena.states(ids).items() if state == "failed"]
    status = arena.status(failed)
    arena.check(
        f"refused as a recipient ({status.cause}, {status.facts.get('code')})",
        (status.cause, status.facts.get("code")) == ("recipient_refused", 550),
    )
    mine = next(address for address, one in arena.addressees.items() if one == failed)
    arena.check("it is the one that the server refused", mine in rejected[0])
    arena.check(f"one mail to two people ({len(server.log)})", [len(one.recipients) for one in server.log] == [2])


@row("F33", "4xx for one of three recipients", "only that one is tried again")
def one_deferred(arena: Arena) -> None:
    deferred: list[str] = []

    def defer(peer: Peer, line: str) -> str:
        if not deferred:
            deferred.append(line)
            return "450 4.2.1 mailbox busy"
        return "250 2.1.5 ok"

    server = arena.server(RCPT=defer)
    ids = packet(arena, server)
    eventually(lambda: arena.count(ids)["sent"] == 2, 20)
    arena.check("two are sent at once", arena.count(ids)["sent"] == 2)
    eventually(lambda: arena.count(ids) == {"sent": 2, "waiting": 1}, 5)
    arena.bring_forward(ids)
    arena.all_sent(20)
    arena.check(
        f"one mail to two people, one to the third ({[one.recipients for one in server.log]})",
        [len(one.recipients) for one in server.log] == [2, 1],
    )


@row("F34", "5xx after the body", "failed, no retry; suppression for recipient codes alone")
def refused_body(arena: Arena) -> None:
    bad = arena.server(DOT=first(1, "554 5.7.1 message rejected as spam", first(1, "550 5.6.0 malformed", OK)))
    two_accounts(arena, bad)
    arena.publish(reset_link(), account="bad")
    arena.all_end(15)
    arena.publish(reset_link(), account="bad")
    arena.check("both end", arena.all_end(15))
    arena.check(f"failed, not suppressed ({dict(arena.count())})", arena.count() == {"failed": 2})
    arena.check("one try each", all(arena.status(one).attempt == 1 for one in arena.accepted))
    bad.answers["RCPT"] = "550 5.1.1 no such user"
    (gone,) = arena.publish(reset_link(), account="bad")
    arena.all_end(15)
    arena.check("an unknown user is a recipient's failure", arena.status(gone).cause == "recipient_refused")
