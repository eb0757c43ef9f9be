"""Real workers: packets on the wire, mail that leaves by a fallback, and servers that hang."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable

from tests.conftest import until
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.governor.kit import field, group_change
from tests.ledger.kit import data_change, reset_link, somebody
from tests.workers.kit import House, smtp

MakeHouse = Callable[..., House]


def to_lines(server: ScriptedServer) -> list[str]:
    return [match[1].decode() for body in server.bodies if (match := re.search(rb"(?im)^to: *(.*)\r$", body))]


def test_recipients_share_mails_of_the_accounts_size_and_nobody_sees_another(make_house: MakeHouse) -> None:
    with ScriptedServer(polite()) as server:
        house = make_house(main=smtp(server.port, limits={"max_recipients": 20}))
        house.start_worker()
        event = group_change(50)
        ids = house.publish(event)
        assert len(ids) == 50
        assert house.wait_for_the_end(ids) == {"sent": 50}
        assert sorted(Counter(server.verbs())[verb] for verb in ("MAIL", "RCPT")) == [3, 50]
        seen = b"".join(server.bodies)
        assert not any(one.address.encode() in seen for one in event.recipients)
        assert set(to_lines(server)) == {"post@school.example"}


def test_each_recipient_of_a_packet_has_an_outcome_and_only_those_refused_for_now_come_again(
    make_house: MakeHouse,
) -> None:
    event = group_change(6)
    full, unknown = event.recipients[1].address, event.recipients[4].address
    asked: Counter[str] = Counter()

    def rcpt(peer: Peer, line: str) -> str:
        address = line[9:].split(">")[0]
        asked[address] += 1
        if address == full and asked[address] == 1:
            return "452 4.2.2 Mailbox full"
        return "550 5.1.1 No such user" if address == unknown else "250 2.1.5 Ok"

    with ScriptedServer(polite(RCPT=rcpt)) as server:
        house = make_house(main=smtp(server.port))
        house.start_worker()
        ids = house.publish(event)
        others = [identity for identity in ids if identity != ids[1]]
        until(lambda: house.states(others) == {"sent": 4, "failed": 1}, what="the first mail's outcomes")
        until(lambda: house.status(ids[1]).history, what="the outcome of the one that is to come again")
        assert house.status(ids[1]).history[0]["what"] == "retried"
        assert house.status(ids[4]).cause == "recipient_refused"
        until(lambda: house.bring_forward(ids[1]) or house.status(ids[1]).state == "sent")
        assert asked == {one.address: 2 if one.address == full else 1 for one in event.recipients}


def test_a_server_that_takes_fewer_recipients_gets_smaller_mails_and_each_recipient_once(
    make_house: MakeHouse,
) -> None:
    inside: Counter[int] = Counter()
    taken: Counter[str] = Counter()

    def mail(peer: Peer, line: str) -> str:
        inside[peer.number] = 0
        return "250 2.1.0 Ok"

    def rcpt(peer: Peer, line: str) -> str:
        inside[peer.number] += 1
        if inside[peer.number] > 10:
            return "452 4.5.3 Too many recipients"
        taken[line] += 1
        return "250 2.1.5 Ok"

    with ScriptedServer(polite(MAIL=mail, RCPT=rcpt)) as server:
        house = make_house(main=smtp(server.port, limits={"max_recipients": 40}))
        house.start_worker()
        ids = house.publish(group_change(40))
        assert house.wait_for_the_end(ids) == {"sent": 40}
        assert set(taken.values()) == {1}
        assert {house.status(identity).attempt for identity in ids} == {1}
        assert field(house, "main", "max_rcpt") == "10"


def test_overflowing_mail_leaves_in_the_name_of_the_fallback_and_says_so(make_house: MakeHouse) -> None:
    quota = "550 5.4.5 Daily user sending quota exceeded"
    with ScriptedServer(polite(DOT=quota)) as spent, ScriptedServer(polite()) as spare:
        fallback = smtp(spare.port)
        fallback["sender"] = {"address": "spare@school.example", "name": "Spare"}
        house = make_house(main=smtp(spent.port, fallback="spare", overflow="parked"), spare=fallback)
        house.start_worker()
        ids = house.publish(*(data_change() for _ in range(8)), account="main")
        assert house.wait_for_the_end(ids) == {"sent": 8}
        froms = {match[1] for body in spare.bodies if (match := re.search(rb"(?im)^from: *(.*)\r$", body))}
        assert froms == {b'"Spare" <spare@school.example>'}
        assert len(spare.bodies) == 8
        lines = [[line["what"] for line in house.status(identity).history] for identity in ids]
        assert all("overflowed" in line for line in lines)
        assert not any("spare@" in line for line in spent.lines)


def test_half_of_the_accounts_hanging_cost_the_others_nothing_to_see(make_house: MakeHouse) -> None:
    def mute(peer: Peer) -> None:
        peer.wait_until_gone()

    with ScriptedServer(mute) as hanging, ScriptedServer(polite()) as fine:
        accounts = {f"bad{n}": smtp(hanging.port) for n in range(6)} | {f"good{n}": smtp(fine.port) for n in range(6)}
        house = make_house(**accounts)
        house.start_worker()
        house.start_worker()
        first = house.publish(reset_link(), account="good0")
        house.wait_for_the_end(first)
        for n in range(6):
            house.publish(*(data_change() for _ in range(20)), account=f"bad{n}")
        took = []
        for n in range(30):
            at = time.monotonic()
            (identity,) = house.publish(reset_link(), account=f"good{n % 6}")
            house.wait_for(identity, "sent")
            took.append(time.monotonic() - at)
        assert sorted(took)[28] < 10, sorted(took)  # one that hangs is given up after 20 s


def test_a_server_that_drips_is_given_up_by_the_total_deadline_and_its_mail_waits(make_house: MakeHouse) -> None:
    def drip(peer: Peer) -> None:
        while True:
            peer.raw(b"220-")
            time.sleep(0.05)

    with ScriptedServer(drip) as slow:
        account = smtp(slow.port)
        account["options"] |= {"total_deadline": 1.0, "timeout_ms": 120_000}
        house = make_house(main=account)
        house.start_worker()
        (identity,) = house.publish(data_change(somebody()))
        until(lambda: any(line["what"] == "retried" for line in house.status(identity).history), what="the end")
        assert house.status(identity).cause == "too_slow"
