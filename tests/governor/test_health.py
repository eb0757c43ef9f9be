"""The breaker, pauses and logins that need a person, over a clock moved by hand."""

from __future__ import annotations

import pytest

from postier.ledger.claims import Claims
from postier.ledger.entries import Handed, back, free, park, slow, split, stall
from postier.ledger.logins import LoginTurns
from postier.ledger.manage import Management
from tests.governor.kit import MakeGovernor, bad, field, good, send, standing, tell
from tests.ledger.kit import Ledger, freed, later

PARKED, RECOVERED = 2, 3


def one(worker: Claims, size: int = 1) -> Handed:
    (handed,) = worker.claim(1, size)[1]
    return handed


def break_it(ledger: Ledger, worker: Claims, account: str = "main") -> None:
    while field(ledger, account, "state") == "ready":
        bad(worker, one(worker))


def test_three_failures_in_a_row_open_the_breaker_and_one_good_probe_closes_it(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    ids = ledger.publish_many(30, "main")
    worker = ledger.worker()
    assert [bad(worker, one(worker)) for _ in range(3)] == [1, 1, PARKED]
    assert (field(ledger, "main", "state"), field(ledger, "main", "reason")) == ("parked", "unreachable")
    until = int(field(ledger, "main", "until"))
    assert 12e6 <= until - ledger.now <= 18e6
    assert worker.claim(8, 16)[1] == []
    ledger.now = until
    ledger.advance(0.001)
    handed = worker.claim(8, 16)[1]
    assert [len(conversation.deliveries) for conversation in handed] == [1], "one probe at a time"
    assert handed[0].deliveries[0].id == ids[0], "and it is the mail whose turn it is"
    assert worker.claim(8, 16)[1] == []
    assert good(worker, handed[0]) == RECOVERED
    assert sum(len(conversation.deliveries) for conversation in worker.claim(8, 16)[1]) == 29


def test_a_bad_probe_makes_the_wait_longer_by_a_quarter_up_to_five_minutes_with_jitter(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={})
    ledger.publish_many(1, "main")
    worker = ledger.worker()
    break_it(ledger, worker)
    began = ledger.now
    shares = []
    for step in range(18):
        until = int(field(ledger, "main", "until"))
        wait, usual = (until - ledger.now) / 1e6, min(300, 15 * 1.25**step)
        shares.append(round(wait / usual, 3))
        assert 0.8 * usual <= wait <= 1.2 * usual
        away = (ledger.now - began) / 1e6
        assert wait <= max(18, 15 + 0.5 * away), "found in a share of the time it was away"
        ledger.now = until
        ledger.advance(0.000_137 * (step + 1))
        assert bad(worker, one(worker)) == 1, "no news"
    assert usual == 300
    assert len(set(shares)) > 3


def test_half_of_five_failures_open_the_breaker_though_never_three_in_a_row(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    ledger.publish_many(30, "main")
    worker = ledger.worker()
    answers = []
    for fails in (True, False, True, True, False, True):
        answers.append(bad(worker, one(worker)) if fails else good(worker, one(worker)))
        if PARKED in answers:
            break
    assert answers[-1] == PARKED
    assert len(answers) >= 5


def test_a_single_failure_among_many_changes_nothing(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    ledger.publish_many(40, "main")
    worker = ledger.worker()
    for step in range(30):
        assert (bad if step % 3 == 0 else good)(worker, one(worker)) in (1, RECOVERED)
    assert field(ledger, "main", "state") == "ready"


def test_a_person_resumes_a_parked_account_at_once_and_pausing_hides_no_old_reason(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={})
    ledger.publish_many(3, "main")
    worker = ledger.worker()
    break_it(ledger, worker)
    people = Management(ledger.store, "ops")
    people.pause("main")
    assert standing(ledger).get("reason") is None
    ledger.advance(3600)
    assert send(worker) == []
    people.resume("main")
    assert len(send(worker)) == 3


def test_an_account_that_needs_a_login_waits_for_a_new_credential_however_long(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    tell(ledger, main="one")
    ids = ledger.publish_many(3, "main")
    worker = ledger.worker()
    (first, *_) = worker.claim(1, 1)[1]
    worker.settle([park("main", state="needs_login", seconds=0, cause="authentication_failed", words="consent"),
                   later(first.deliveries[0], 0, spend=False), freed(first)])  # fmt: skip
    ledger.advance(40 * 3600)
    assert send(worker) == []
    assert tell(ledger, main="one") == []
    assert send(worker) == []
    assert tell(ledger, main="two") == ["main"]
    probe = worker.claim(8, 16)[1]
    assert [[one.id for one in conversation.deliveries] for conversation in probe] == [[ids[0]]]
    good(worker, probe[0])
    assert [one.id for one in send(worker)] == ids[1:]


def test_workers_with_different_secrets_do_not_wake_a_refused_account_in_turn(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    for secret in ("new", "old"):  # two workers start
        tell(ledger, told={}, main=secret)
    ledger.publish_many(3, "main")
    worker = ledger.worker()
    (first, *_) = worker.claim(1, 1)[1]
    worker.settle([park("main", state="parked", seconds=1200, cause="authentication_failed", words="wrong"),
                   later(first.deliveries[0], 0, spend=False), freed(first)])  # fmt: skip
    for secret in ("new", "old", "new"):  # what they say once a minute
        assert tell(ledger, told={"main": secret}, main=secret) == []
        assert send(worker) == []
    ledger.store.redis.hdel(ledger.store.key("account:main"), "credential")  # an older copy of the ledger
    tell(ledger, told={"main": "new"}, main="new")
    assert field(ledger, "main", "credential") == "new"
    assert tell(ledger, told={"main": "new"}, main="right") == ["main"]
    assert len(send(worker)) == 1


def test_an_account_that_a_worker_did_not_have_is_tried_again_when_it_has_it(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    tell(ledger, told={}, main="one")
    ledger.publish_many(3, "main")
    worker = ledger.worker()
    (first, *_) = worker.claim(1, 1)[1]
    worker.settle([park("main", state="parked", seconds=1200, cause="account", words="not configured here"),
                   later(first.deliveries[0], 0, spend=False), freed(first)])  # fmt: skip
    tell(ledger, told={"main": "one"}, main="one")
    assert send(worker) == []
    tell(ledger, told={}, main="one")
    assert len(send(worker)) == 1


def test_a_pace_is_halved_once_a_second_down_to_a_floor_and_regained_step_by_step(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={"limits": {"per_second": 100}})
    worker = ledger.worker()
    factors = []
    for _ in range(8):
        worker.settle([slow("main", seconds=0.5), slow("main", seconds=0.5)])
        factors.append(standing(ledger)["pace"]["factor"])
        ledger.advance(1)
    assert factors == sorted(factors, reverse=True)
    assert 0.49 <= factors[0] <= 0.5
    assert factors[-1] == 0.05
    shown = standing(ledger)
    assert (shown["state"], shown["pace"]["floor"], shown["pace"]["ceiling"]) == ("slowed", 0.05, 1.0)
    before = shown["pace"]["factor"]
    ledger.advance(10)
    ten_later = standing(ledger)["pace"]["factor"]
    ledger.advance(10)
    twenty_later = standing(ledger)["pace"]["factor"]
    assert abs((twenty_later - ten_later) - (ten_later - before)) < 0.001, "additive"
    ledger.advance(100)
    assert standing(ledger)["state"] == "ready"


def test_a_slowed_account_keeps_to_its_share_and_to_retry_after(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_second": 50}})
    ledger.publish_many(300, "main")
    worker = ledger.worker()
    worker.settle([slow("main", seconds=20)])
    _wait, handed = worker.claim(8, 16)
    assert handed == []
    ledger.advance(19.9)
    assert worker.claim(8, 16)[1] == []
    left = 0
    for _ in range(100):
        ledger.advance(0.01)
        left += len(send(worker))
    assert 25 <= left <= 36  # half of it and what 20 seconds gave back


def test_too_many_recipients_halves_what_was_refused_and_never_raises_it_again(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_recipients": 100}})
    worker = ledger.worker()
    worker.settle([split("main", recipients=40)])
    assert field(ledger, "main", "max_rcpt") == "20"
    worker.settle([split("main", recipients=100)])
    assert field(ledger, "main", "max_rcpt") == "20"
    tell(ledger)
    assert field(ledger, "main", "max_rcpt") == "20"
    worker.settle([split("main", recipients=1)])
    assert field(ledger, "main", "max_rcpt") == "1"


def test_one_account_gets_half_of_all_threads_at_most_and_those_in_trouble_a_quarter_together(
    make_governor: MakeGovernor,
) -> None:
    wide = {"limits": {"max_connections": 100}}
    ledger = make_governor(**{f"a{number}": wide for number in range(8)})
    worker = ledger.worker()
    claims = Claims(ledger.store, "w1", lease=10, crash_limit=3, keep_sent=60, threads=16)
    claims.renew((), ())
    for number in range(8):
        ledger.publish_many(200, f"a{number}")
        if number < 6:
            bad(worker, one_of(worker, f"a{number}"))
    ledger.advance(0.3)
    heard(ledger, "a6", "a7")
    handed = claims.claim(200, 1)[1]
    counts = {name: sum(item.account == name for item in handed) for name in (f"a{number}" for number in range(8))}
    assert counts["a6"] == counts["a7"] == 8
    assert sum(counts[f"a{number}"] for number in range(6)) == 4


def heard(ledger: Ledger, *names: str) -> None:
    """Mail of these accounts was just taken."""
    for name in names:
        ledger.store.redis.hset(ledger.store.key(f"account:{name}"), "well_at", ledger.ledger_now)


def one_of(worker: Claims, account: str) -> Handed:
    """A conversation of this account; those of others go back."""
    found = None
    for handed in worker.claim(50, 1)[1]:
        if found is None and handed.account == account:
            found = handed
        else:
            worker.settle([*map(back, handed.deliveries), free(handed.name, handed.account, "none")])
    assert found is not None
    return found


def test_a_hanging_conversation_keeps_others_of_its_account_away_until_it_ends(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={}, other={})
    ledger.publish_many(5, "main")
    worker = ledger.worker()
    hangs = one(worker)
    worker.settle([stall("main")])
    assert worker.claim(8, 16)[1] == []
    good(worker, hangs)
    assert len(send(worker)) == 4


def test_a_login_waits_for_its_turn_and_a_refused_one_is_tried_three_times_an_hour(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={})
    tell(ledger, main="secret")
    mine, late = LoginTurns(ledger.store, "main", "secret"), LoginTurns(ledger.store, "main", "older")
    assert late.begin("t0")[0] == "stale"
    assert [mine.begin(f"t{number}")[0] for number in range(3)] == ["go", "go", "busy"]
    mine.end("t0", "refused")
    assert mine.begin("t3")[0] == "busy", "a refusal keeps others away until the account is parked"
    mine.end("t1", "refused")
    ledger.advance(3)
    assert [mine.begin(f"u{number}")[0] for number in range(2)] == ["go", "busy"]
    mine.end("u0", "refused")
    ledger.advance(3)
    answer, rest = mine.begin("v0")
    assert answer == "spent"
    assert 3500 < rest <= 3600
    ledger.advance(rest + 1)
    assert mine.begin("w0")[0] == "go"
    mine.end("w0", "good")
    tell(ledger, main="newer")
    assert LoginTurns(ledger.store, "main", "newer").begin("x0")[0] == "go"
    Management(ledger.store, "ops").pause("main")
    assert LoginTurns(ledger.store, "main", "newer").begin("x1")[0] == "stands"


@pytest.mark.parametrize("proven", [False, True])
def test_servers_of_which_nobody_heard_lately_get_half_of_all_threads_at_most(
    make_governor: MakeGovernor, proven: bool
) -> None:
    """Those that worked yesterday, too: they may hang today."""
    ledger = make_governor(**{f"quiet{number}": {} for number in range(20)}, known={})
    for number in range(20):
        key = ledger.store.key(f"account:quiet{number}")
        if not proven:
            ledger.store.redis.hdel(key, "proven")
        ledger.store.redis.hset(key, "well_at", ledger.now - 11_000_000)
        ledger.publish_many(5, f"quiet{number}")
    heard(ledger, "known")
    worker = Claims(ledger.store, "w1", lease=10, crash_limit=3, keep_sent=60, threads=16)
    worker.renew((), ())
    assert len(worker.claim(16, 4)[1]) == 8
    ledger.publish_many(1, "known")
    assert [conversation.account for conversation in worker.claim(8, 4)[1]] == ["known"]
    ledger.advance(0.4)
    assert len(worker.claim(16, 4)[1]) == 8


def test_an_account_of_which_nobody_hears_any_more_gets_no_further_threads(make_governor: MakeGovernor) -> None:
    ledger = make_governor(**{f"dies{number}": {} for number in range(10)}, known={})
    names = [f"dies{number}" for number in range(10)]
    for name in names:
        ledger.publish_many(50, name)
    heard(ledger, *names)
    worker = Claims(ledger.store, "w1", lease=10, crash_limit=3, keep_sent=60, threads=16)
    worker.renew((), ())
    hanging = len(worker.claim(16, 4)[1])
    for _ in range(30):
        ledger.advance(0.25)
        hanging += len(worker.claim(min(16, 48 - hanging), 4)[1])
    assert hanging <= 32, "as many threads are left as there are without the spare ones"


def test_a_slow_server_that_answers_keeps_its_conversations(make_governor: MakeGovernor) -> None:
    ledger = make_governor(slow={"limits": {"max_connections": 6}}, other={})
    heard(ledger, "slow")
    ledger.publish_many(200, "slow")
    worker = Claims(ledger.store, "w1", lease=10, crash_limit=3, keep_sent=60, threads=16)
    worker.renew((), ())
    open_ = worker.claim(16, 2)[1]
    assert len(open_) == 6
    for _ in range(20):
        ledger.advance(0.2)  # each lasts 1.2 seconds
        good(worker, open_.pop(0))
        open_ += worker.claim(16, 2)[1]
        assert len(open_) == 6
