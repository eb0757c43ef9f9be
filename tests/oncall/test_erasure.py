"""Erasure of one person: afterwards the whole ledger is read and every content opened, and the person is nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from urllib.parse import unquote

import pytest

from postier.ledger.audit import Audit
from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Entry, Reply, end, history
from postier.ledger.erasure import Erased, Erasure
from postier.ledger.inbox import Inbox, open_refused
from postier.ledger.manage import Management
from postier.ledger.mentions import Mentions
from postier.ledger.payload import open_payload
from postier.ledger.publish import Allowance
from postier.ledger.search import Filters
from postier.ledger.store import Store
from postier.schemas.address import parse_address
from postier.schemas.events import Change, Event, Recipient, Visitor
from postier.settings.seal import Sealer
from tests.ledger.kit import Ledger, contact_form, data_change, freed, later, ok, over, reset_link, somebody, take
from tests.oncall.kit import replay

PERSON = "Wilma.Quartz+news@Example.org"
NAME = "Wilhelmina"
TRACES = ("wilma", "quartz", NAME.lower(), "w***@e***.org")


def erase(ledger: Ledger, sealer: Sealer, address: str = PERSON, tenant: str = "school") -> Erased:
    return Erasure(ledger.store, "ann", parse_address(address), tenant, sealer).run()


def wilma() -> Recipient:
    return Recipient(address=PERSON, name=NAME)


def everything(store: Store, sealer: Sealer) -> dict[str, str]:
    """Every key of the ledger with all it holds, in lower case; what is sealed is opened, or it fails."""
    found: dict[str, str] = {}
    for key in store.redis.scan_iter(match=f"{store.prefix}*".replace("{", "\\{"), count=1000):
        name = key.decode().removeprefix(store.prefix)
        read = {
            b"none": list,  # it ran out meanwhile
            b"string": lambda: [store.redis.get(key) or b""],  # noqa: B023 (called at once)
            b"hash": lambda: [part for pair in store.redis.hgetall(key).items() for part in pair],  # noqa: B023
            b"list": lambda: store.redis.lrange(key, 0, -1),  # noqa: B023
            b"zset": lambda: store.redis.zrange(key, 0, -1),  # noqa: B023
            b"set": lambda: store.redis.smembers(key),  # noqa: B023
            b"stream": lambda: [part for _, row in store.redis.xrange(key) for pair in row.items() for part in pair],  # noqa: B023
        }[store.redis.type(key)]()
        if name.startswith("payload:"):
            read = [sealer.open(read[0], name.removeprefix("payload:").encode())]
        if name == "inbox:refused":
            read = [part for row in read for part in (row.partition(b"\n")[0], open_refused(sealer, row))]
        found[name] = " ".join([name, *(part.decode("utf-8", "replace") for part in read)]).lower()
    return found


def traces(store: Store, sealer: Sealer) -> dict[str, str]:
    return {name: text for name, text in everything(store, sealer).items() if any(one in text for one in TRACES)}


def settle_all(worker: Claims, entry: Callable[[Claimed], Entry]) -> list[str]:
    """Claim whatever is due and let each end so; the ids."""
    ended: list[str] = []
    while handed := worker.claim(8, 16)[1]:
        for conversation in handed:
            worker.settle([*map(entry, conversation.deliveries), freed(conversation)])
            ended += [one.id for one in conversation.deliveries]
    return ended


def doubtful(delivery: Claimed) -> Entry:
    return end(delivery, Reply(), state="unknown", cause="outcome_unknown", timeline=history("unknown"))


def about_wilma() -> list[Event]:
    """Mail to others that names the person in every place where content can."""
    change = Change(field="mail", label="Mail", old=f"she was\n{PERSON}", new=NAME)
    return [
        contact_form(f"{NAME} asks").model_copy(update={"visitor": Visitor(name=NAME, address=PERSON)}),
        data_change().model_copy(update={"actor": f"{NAME} <{PERSON.upper()}>"}),
        data_change().model_copy(update={"changes": (change,)}),
        reset_link(token="x&next=%2Fu%3Fmail%3Dwilma.quartz%252Bnews%2540example.org"),
    ]


def in_every_state(ledger: Ledger, worker: Claims) -> None:
    """The person as a recipient and as somebody who is named, in mail of every end and in mail that waits."""
    events = [reset_link(wilma()), data_change(wilma()), *about_wilma()]
    for entry in (over, doubtful, ok, partial(later, seconds=600)):
        for event in events:
            ledger.publish(event)
        settle_all(worker, entry)
    failed = [one.id for one in ledger.queries.failures(Filters(), states=("failed",))]
    replay(ledger, failed[:2], at=ledger.now / 1e6 + 3600)
    dict(Management(ledger.store, "ann").discard(failed[2:4], f"asked for by {PERSON}"))
    for event in events:
        ledger.publish(event)
    ledger.publish(data_change(), reply_to=PERSON)
    ledger.publish(data_change(), idempotency_key=f"order-7-of-{PERSON}-2026")


def in_odd_places(ledger: Ledger, sealer: Sealer) -> None:
    """Where producers and older versions may have left the address."""
    store = ledger.store
    allowance = Allowance("cooldown:school:reset_link:", 1, 3600, "data.recipient", "too soon", per_recipient=True)
    ledger.publisher.publish([replace(ledger.admitted(reset_link(wilma())), allowances=(allowance,))])
    (one,) = ledger.publish(data_change()).deliveries
    store.redis.hset(store.key(f"delivery:{one}"), "words", f"no such user <{PERSON.lower()}>")
    store.redis.rpush(store.key(f"history:{one}"), f"1 {json.dumps({'what': 'retried', 'by': PERSON})}")
    store.redis.set(store.key(f"key:school:forgotten long ago, of {PERSON}"), "f e id")
    unknown_kind = json.dumps({"kind": "none", "tenant": "school", "data": {"to": PERSON, "name": NAME}})
    store.redis.rpush(store.key("inbox"), unknown_kind, f"{{no JSON: {PERSON}")
    store.redis.rpush(store.key("inbox"), "[" * 100_000 + f'"{PERSON}"')
    assert Inbox(store, sealer, ledger.publisher).take(ledger.registry, wait=0.1) == (0, 3)
    store.redis.rpush(store.key("inbox"), *[json.dumps({"tenant": "school", "data": [{"x": f"\\n<{PERSON}>"}]})] * 2)


def test_nothing_in_the_ledger_tells_of_an_erased_person(ledger: Ledger, sealer: Sealer) -> None:
    in_every_state(ledger, ledger.worker())
    in_odd_places(ledger, sealer)
    before = traces(ledger.store, sealer)
    assert {name.partition(":")[0] for name in before} >= {"delivery", "payload", "key", "inbox", "history"}

    done = erase(ledger, sealer)

    assert traces(ledger.store, sealer) == {}
    assert (done.under_way, done.unopened, done.inbox, done.stays) == (0, 0, 5, [])
    assert done.erased == 2 * 5 + 1
    allowances = [name for name in everything(ledger.store, sealer) if name.startswith("allowance:cooldown")]
    assert allowances == []
    assert len(settle_all(ledger.worker(), ok)) == 2  # to others, and only words and a key named her
    states = ledger.queries.counts()
    assert (states["failed"], states["unknown"], states["waiting"]) == (0, 0, 0)
    again = erase(ledger, sealer)
    assert (again.erased, again.named, again.inbox) == (0, 0, 0)


def test_what_tells_of_others_stays_as_it_was(ledger: Ledger, sealer: Sealer) -> None:
    like = ("jowilma.quartz+news@example.org", "wilma.quartz+news@example.org.uk", "x+wilma.quartz+news@example.org",
            "quartz+news@example.org", "wilma.quartz@example.org")  # fmt: skip
    for address in like:
        ledger.publish(reset_link(Recipient(address=address)))
        ledger.publish(contact_form(f"write to {address} or not"))
    shared = data_change(wilma(), somebody()).model_copy(update={"together": True})
    mine, other = ledger.publish(shared).deliveries
    ledger.publish(data_change(), idempotency_key="jowilma.quartz+news@example.org")
    ledger.publish(data_change(wilma()), tenant="shop")
    ledger.store.redis.rpush(ledger.store.key("inbox"), json.dumps({"tenant": "shop", "to": PERSON}))
    before = everything(ledger.store, sealer)

    done = erase(ledger, sealer)

    assert (done.erased, done.named, done.inbox) == (1, 0, 0)
    after = everything(ledger.store, sealer)
    indexes = ("deadline", "lane:main:b", "lane:main:u", "audit", "ended:discarded", "forget", "memory")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - set(indexes)
    assert changed == {f"delivery:{mine}", f"payload:{mine}", f"history:{mine}"}
    assert open_payload(sealer, other, ledger.store.redis.get(ledger.store.key(f"payload:{other}")))


def test_mail_under_way_is_left_for_another_run(ledger: Ledger, sealer: Sealer) -> None:
    worker = ledger.worker()
    ledger.publish(about_wilma()[0])
    ledger.publish(reset_link(wilma()))
    held = take(worker)
    assert len(held) == 3

    done = erase(ledger, sealer)
    assert (done.erased, done.named, done.under_way) == (0, 0, 3)
    worker.settle([over(one) for one in held])
    done = erase(ledger, sealer)

    assert (done.erased, done.named, done.under_way) == (1, 2, 0)
    assert traces(ledger.store, sealer) == {}


def test_a_person_s_record_tells_when_and_not_what(ledger: Ledger, sealer: Sealer) -> None:
    (one,) = ledger.publish(reset_link(wilma())).deliveries
    (form, _) = ledger.publish(about_wilma()[0]).deliveries
    settle_all(ledger.worker(), over)

    erase(ledger, sealer)

    status, named = ledger.status(one), ledger.status(form)
    assert (status.state, status.cause, status.recipient, status.words) == ("discarded", "erased", "(erased)", "")
    assert [line["what"] for line in status.history] == ["failed", "erased"]
    assert (named.state, named.cause, named.recipient) == ("discarded", "erased", "o***@s***.example")
    assert ledger.store.redis.hget(ledger.store.key(f"delivery:{one}"), "rkey") is None
    assert ledger.store.redis.hget(ledger.store.key(f"delivery:{form}"), "rkey")
    (line,) = Audit(ledger.store).entries()
    assert (line.who, line.what, line.subject, line.count, line.details["named"]) == (
        "ann", "person.erased", "school", 1, 2,
    )  # fmt: skip


def test_a_person_is_found_under_every_seal_key_that_was_ever_first(
    ledger: Ledger, seal_key: str, sealer: Sealer
) -> None:
    ledger.publish(reset_link(wilma()))
    ledger.publish(about_wilma()[0])
    rotated = Sealer.from_text(f"{Sealer.new_key('k9')},{seal_key}")

    done = erase(ledger, rotated)

    assert (done.erased, done.named, traces(ledger.store, sealer)) == (1, 2, {})


def test_content_without_its_key_is_told_of(ledger: Ledger) -> None:
    ledger.publish(about_wilma()[0])

    assert erase(ledger, Sealer.from_text(Sealer.new_key("k7"))).unopened == 2


def test_settings_and_the_audit_are_told_of(ledger: Ledger, sealer: Sealer) -> None:
    Audit(ledger.store).record(who=PERSON, what="account.paused")

    done = erase(ledger, sealer, "Office@school.example")

    assert done.stays == ["tenants.school"]
    assert erase(ledger, sealer).stays == ["1 lines of the audit"]


@pytest.mark.parametrize(
    ("address", "text", "named"),
    [
        ("ann@example.org", "mailto:Ann@EXAMPLE.org?subject=x", True),
        ("ann@example.org", "ann@example.org.", True),
        ("ann@example.org", "u=ann%2540example.org&x=1", True),
        ("ann@example.org", "joann@example.org, ann@example.organic, ann@example.org.uk", False),
        ("a+b@bücher.example", "A+B@Bücher.example", True),
        ("a+b@bücher.example", "a%2Bb%40xn--bcher-kva.example", True),
        ("a+b@bücher.example", "a%2Bb%40b%C3%BCcher.example", True),
        ("zoé@example.org", "<ZOÉ@example.org>", True),
        ("o'neil@example.org", "o'neil@example.org", True),
    ],
)
def test_an_address_is_seen_in_whatever_way_it_is_written(address: str, text: str, named: bool) -> None:
    mentions = Mentions(parse_address(address))

    assert mentions.in_text(text) is named
    for escaped in (True, False):
        data = {"data": {"list": [1, None, f"see\n{text}\tthere"]}}
        assert mentions.in_json(json.dumps(data, ensure_ascii=escaped).encode()) is named
    assert all(part in unquote(text).lower() or "%" in text for part in mentions.parts if named)
