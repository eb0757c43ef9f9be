"""From "mail is failing" to "fixed and replayed": failures of ten causes, judged by the mail server alone.

    python bench/failures.py [--deliveries 5000] [--accounts 20] [--pace 50] [--no-chaos] [--json]

A played worker lets the deliveries fail; then an engineer's commands are run one by one, real workers send, one of them
is killed and Redis is killed and started again in the middle. What counts is what the SMTP server took, by Message-ID:
nothing twice, nothing that is over, nothing that was sent before, the pace, and the wait of an account that had no part
in it. The commands and what they answered are printed. Exit 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stage import SinkProcess, account, percentile, reset_link, wait_until

from postier.client import Change, ContactForm, DataChange, Entity, Postier, Recipient, Visitor
from postier.console.main import main as postier_command
from postier.ledger.accounts import configure
from postier.ledger.claims import Claims
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import Reply, end, free, history, sent
from postier.ledger.store import Store
from postier.schemas.events import Event
from postier.settings.config import read_registry
from postier.settings.seal import Sealer

LEASE = 3.0
CAUSES = (
    ("failed", "recipient_refused", 550, "5.1.1", "no such user here"),
    ("failed", "email_refused", 554, "5.7.1", "looks like spam"),
    ("failed", "refused", 550, "5.0.0", "not taken"),
    ("failed", "sender_refused", 550, "5.7.1", "sender not allowed"),
    ("expired", "temporary", 451, "4.3.0", "try again later"),
    ("failed", "render", None, None, "field `name` is missing"),
    ("failed", "crashed", None, None, ""),
    ("unknown", "outcome_unknown", None, None, ""),
    ("unknown", "worker_died", None, None, ""),
    ("failed", "unreachable", None, None, "connection refused"),
)
OVER = "unreachable"  # the links of this class are over before anybody looks
LINKS_LAST = 4.0


def event_for(number: int, cause: str) -> Event:
    """What failed: links that are over, contact forms of which nobody knows, changes else."""
    now = datetime.now(UTC)
    if cause == OVER:
        return reset_link(number).model_copy(update={"expires_at": now + timedelta(seconds=LINKS_LAST)})
    if cause in ("outcome_unknown", "worker_died"):
        visitor = Visitor(name="Ada", address="ada@example.com")
        return ContactForm(
            form_id="contact", visitor=visitor, subject=f"Question {number}", message="?", submitted_at=now
        )
    return DataChange(
        subscription_id="marks", recipients=(Recipient(address=f"user{number}@example.com"),),
        entity=Entity(type="room", id="1", label="Room 1"), changed_at=now,
        changes=(Change(field="room", label="Room", old="A", new="B"),),
    )  # fmt: skip


class Campaign:
    """One ledger with its failures, an SMTP server, workers, and a bystander account."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="postier-bench-"))
        self.sink = SinkProcess()
        self.redis = EmbeddedServer(self.folder / "redis", fsync="everysec", maxmemory="2gb").start()
        names = [f"a{number:02}" for number in range(options.accounts)]
        rows = "".join(account(name) for name in [*names, "quiet"]).replace("{port}", str(self.sink.port))
        tenant = '[tenants.school]\nallowed_hosts = ["app.example.org"]\ncontact_per_hour = 1000000\n'
        form = '[tenants.school.forms.contact]\nrecipients = ["office@example.com"]\nper_hour = 1000000\n'
        (self.folder / "accounts.toml").write_text(rows + tenant + form)
        self.environment = {
            "POSTIER_REDIS_URL": self.redis.url,
            "POSTIER_SEAL_KEYS": Sealer.new_key(),
            "POSTIER_ACCOUNTS_FILE": str(self.folder / "accounts.toml"),
            "POSTIER_DATA_DIR": str(self.folder / "data"),
            "POSTIER_LEASE_SECONDS": str(LEASE),
            "POSTIER_LOG_LEVEL": "error",
        }
        os.environ.update(self.environment)
        self.names = names
        self.store = Store(self.redis.url)
        configure(self.store, read_registry(self.folder / "accounts.toml"))
        self.client = Postier()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.steps: list[dict[str, Any]] = []
        self.causes: dict[str, str] = {}
        self.sent_before: set[str] = set()
        self.replayed: set[str] = set()
        self.broken: list[str] = []

    def fail_all(self) -> None:
        """Publish, and play the worker that ends each delivery as its cause says; every twentieth was sent."""
        wanted: dict[str, int] = {}
        for number in range(self.options.deliveries):
            cause = CAUSES[number % len(CAUSES)][1]
            name = self.names[number // len(CAUSES) % len(self.names)]
            answer = self.client.publish(event_for(number, cause), tenant="school", account=name)
            wanted[answer.deliveries[0]] = number
            if number % 50 == 49:  # long before links are over
                self._end(wanted)
        wait_until(lambda: self._end(wanted), 60, "the failures")
        self.client.publish(reset_link(0), tenant="school", account="quiet")

    def _end(self, wanted: dict[str, int]) -> bool:
        claims = Claims(self.store, "played", lease=30, crash_limit=3, keep_sent=86_400, threads=64)
        while handed := claims.claim(64, 50)[1]:
            for conversation in handed:
                entries = []
                for one in conversation.deliveries:
                    number = wanted[one.id]
                    state, cause, code, enhanced, words = CAUSES[number % len(CAUSES)]
                    reply = Reply(code, enhanced, words)
                    if number % 20 == 2:
                        self.sent_before.add(one.id)
                        entries.append(sent(one.id, one.fence, Reply(250, "2.0.0", "ok"), provider_id=None, took=1))
                        continue
                    self.causes[one.id] = cause
                    line = history(state, attempt=1, account=conversation.account, cause=cause, code=code, words=words)
                    entries.append(end(one, reply, state=state, cause=cause, timeline=line))
                claims.settle([*entries, free(conversation.name, conversation.account, "good")])
        return len(self.causes) + len(self.sent_before) == len(wanted)

    def run(self, *arguments: str, expect: int = 0) -> list[Any]:
        """Run a command as the engineer types it; its JSON lines."""
        out, errors = io.StringIO(), io.StringIO()
        start = time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = postier_command(arguments)
        lines = out.getvalue().splitlines()
        seconds = round(time.monotonic() - start, 2)
        self.steps.append({"command": "postier " + " ".join(arguments), "seconds": seconds, "lines": len(lines)})
        if not self.options.json:
            print(f"{seconds:6.2f} s  postier {' '.join(arguments)[:140]}")
        if code != expect:
            self.broken.append(f"`{' '.join(arguments)}` ended with {code}: {errors.getvalue()[-200:]}")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def start_worker(self) -> None:
        """One more worker process."""
        command = [sys.executable, "-m", "postier.workers.main"]
        self.workers.append(subprocess.Popen(command, env={**os.environ}, stderr=subprocess.DEVNULL))

    def replay(self, *arguments: str) -> dict[str, Any]:
        """Preview, then do it with the number of the preview."""
        (shown,) = self.run("failed", "replay", *arguments, "--dry-run", "--json")
        count = str(shown["starts"])
        (done,) = self.run("failed", "replay", *arguments, "--confirm", count, "--by", "ann", "--json")
        self.require(done["replayed"] == shown["starts"], f"{done['replayed']} replayed, {shown['starts']} previewed")
        return dict(done)

    def require(self, holds: bool, words: str) -> None:
        """Note a broken promise."""
        if not holds:
            self.broken.append(words)

    def arrivals(self) -> dict[str, list[float]]:
        """When each delivery came to the mail server."""
        found: dict[str, list[float]] = defaultdict(list)
        for at, _, message_id in self.sink.log():
            found[message_id.strip("<>").partition("@")[0]].append(at)
        return found

    def of(self, *causes: str) -> set[str]:
        """The deliveries that failed so."""
        return {one for one, cause in self.causes.items() if cause in causes}

    def wait_for_replay(self, replay_id: str, seconds: float) -> dict[str, Any]:
        """Until nothing of it waits; how it went."""
        shown: dict[str, Any] = {}

        def over() -> bool:
            (found,) = self.run("replays", "show", replay_id, "--json")
            self.steps.pop()
            shown.update(found)
            return bool(found["left"] == 0)

        deadline = time.monotonic() + seconds
        quiet, self.options.json = self.options.json, True
        while not over() and time.monotonic() < deadline:
            time.sleep(0.3)
        self.options.json = quiet
        self.require(shown["left"] == 0, f"replay {replay_id}: {shown['left']} still wait after {seconds:.0f} s")
        return shown

    def close(self) -> None:
        """End everything that was started."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(timeout=35)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.client.close()
        self.store.close()
        self.redis.stop()
        self.sink.stop()


class Bystander:
    """Somebody else's reset links, ten a second, by an account that never failed; how long each took to the server."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.published: dict[str, float] = {}

    def _run(self) -> None:
        number = time.monotonic_ns() // 1_000_000  # a recipient of its own for each: a newer link supersedes
        while not self._stop.wait(0.1):
            number += 1
            with contextlib.suppress(Exception):  # while Redis is away nothing is accepted
                at = time.time()
                answer = self._campaign.client.publish(reset_link(number), tenant="school", account="quiet")
                self.published[answer.deliveries[0]] = at

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Bystander]:
        """Publish until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def waits(self) -> list[float]:
        """Seconds from publish to the mail server; what never came counts as an hour."""
        arrived = self._campaign.arrivals()
        return [(arrived[one][0] - at) if arrived.get(one) else 3600.0 for one, at in self.published.items()]


def campaign(play: Campaign) -> dict[str, Any]:
    """The engineer's way. Returns the figures."""
    options = play.options
    figures: dict[str, Any] = {"deliveries": options.deliveries, "accounts": options.accounts}
    play.fail_all()
    time.sleep(LINKS_LAST)
    groups = play.run("failed", "--json")
    figures["groups"] = len(groups)
    play.require({one["cause"] for one in groups} == {row[1] for row in CAUSES}, "a cause has no group")
    play.require(sum(one["count"] for one in groups) == len(play.causes), "the groups do not add up")
    play.run("runbook", groups[0]["runbook"])
    play.run("failed", "list", "--group", groups[0]["id"], "--json")
    play.run("status", groups[0]["sample"], "--json")
    (shown,) = play.run("failed", "replay", "--all", "--dry-run", "--json")
    play.require(shown["stays"].get("over") == len(play.of(OVER)), "the preview does not skip what is over")
    play.require(
        shown["stays"].get("unknown") == len(play.of("outcome_unknown", "worker_died")),
        "the preview does not ask for unknown outcomes",
    )
    for _ in range(2):
        play.start_worker()
    wait_until(lambda: play.sink.count() > 0, 60, "the workers")
    with Bystander(play).at_work() as before:
        wait_until(lambda: len(before.published) >= options.quiet, 120, "the bystander's mail")
    with Bystander(play).at_work() as during:
        figures |= paced(play)
        figures |= stopped(play)
        rest(play, figures)
    judged(play, figures)
    others = {*before.published, *during.published}
    deadline = time.monotonic() + 120  # what the killed worker held of them comes back after its lease
    while not others <= play.arrivals().keys() and time.monotonic() < deadline:
        time.sleep(0.3)
    figures["bystander_p95_before"] = round(percentile(before.waits(), 0.95), 3)
    figures["bystander_p95_during"] = round(percentile(during.waits(), 0.95), 3)
    verify(play, figures, [*before.published, *during.published])
    return figures


def slope(times: list[float]) -> float:
    """Events per second, by the line that fits all of them best."""
    middle, half = sum(times) / len(times), (len(times) - 1) / 2
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (number - half) for number, at in enumerate(times)) / spread


def paced(play: Campaign) -> dict[str, Any]:
    """One class at a pace; the same replay again starts nothing."""
    pace = play.options.pace
    done = play.replay("--all", "--class", "recipient_refused", "--pace", f"{pace}/s")
    wanted = play.of("recipient_refused")
    play.wait_for_replay(done["replay"], 60 + len(wanted) / pace)
    play.replayed |= wanted
    times = sorted(at for one, came in play.arrivals().items() if one in wanted for at in came)
    rate = slope(times)
    play.require(len(times) == len(wanted), f"{len(times)} of {len(wanted)} paced mails came")
    play.require(abs(rate / pace - 1) <= play.options.off, f"the pace was {rate:.2f}/s instead of {pace}/s")
    ids = play.folder / "ids"
    ids.write_text("\n".join(wanted))
    (again,) = play.run(
        "failed", "replay", "--file", str(ids), "--replay-id", done["replay"], "--confirm", "0", "--json"
    )  # fmt: skip
    play.require(again["replayed"] == 0, "the same replay started something twice")
    return {"paced": len(wanted), "pace_asked": pace, "pace_kept": round(rate, 3)}


def stopped(play: Campaign) -> dict[str, Any]:
    """A slow replay is stopped on its way, and what was taken back is replayed at once."""
    wanted = play.of("email_refused")
    done = play.replay("--all", "--class", "email_refused", "--pace", f"{max(1, len(wanted) // 20)}/s")
    wait_until(lambda: any(one in wanted for one in play.arrivals()), 30, "the first of a slow replay")
    (stop,) = play.run("replays", "stop", done["replay"], "--by", "ann", "--json")
    play.wait_for_replay(done["replay"], 30)
    again = play.replay("--all", "--class", "email_refused")
    play.require(again["replayed"] == stop["taken_back"], "what was taken back was not replayable")
    play.wait_for_replay(again["replay"], 60)
    play.replayed |= wanted
    return {"taken_back": stop["taken_back"]}


def rest(play: Campaign, figures: dict[str, Any]) -> None:
    """All the others at once, while a worker and Redis are killed."""
    wanted = set(play.causes) - play.replayed - play.of(OVER, "outcome_unknown", "worker_died")
    done = play.replay("--all", "--pace", f"{max(20, len(wanted) // 20)}/s")
    play.require(done["replayed"] == len(wanted), f"{done['replayed']} replayed of {len(wanted)}")
    play.replayed |= wanted
    if play.options.chaos:
        time.sleep(1.5)
        play.workers[0].kill()
        play.workers[0].wait()
        play.start_worker()
        time.sleep(2)
        play.redis.kill()
        time.sleep(1)
        play.redis.start()
    shown = play.wait_for_replay(done["replay"], 120)
    figures["replayed_through_kills"] = shown["states"]
    play.require(set(shown["states"]) <= {"sent", "unknown"}, f"after the kills: {shown['states']}")


def judged(play: Campaign, figures: dict[str, Any]) -> None:
    """Unknown outcomes: one class was found at the provider, the other was not."""
    found, lost = play.of("outcome_unknown"), play.of("worker_died")
    listed = play.run("unknown", "list", "--limit", "10000", "--json")
    play.require(found | lost <= {one["id"] for one in listed}, "an unknown outcome is not listed")
    play.require(all(one["evidence"].get("message_id") for one in listed), "evidence is missing")
    for cause, verdict, count in (("outcome_unknown", "--sent", found), ("worker_died", "--resend", lost)):
        theirs = [one["id"] for one in listed if one["cause"] == cause and one["id"] not in play.replayed]
        play.require(set(theirs) == count, f"{len(theirs)} listed of {len(count)} {cause}")
        for start in range(0, len(theirs), 100):
            play.run("unknown", "resolve", *theirs[start : start + 100], verdict, "--by", "ann", "--json")
            play.steps[-1]["command"] = f"postier unknown resolve … {verdict}"
    play.replayed |= lost
    wait_until(lambda: lost <= set(play.arrivals()), 60, "the mail that was sent again")
    figures["unknown"] = {"sent": len(found), "resent": len(lost)}


def verify(play: Campaign, figures: dict[str, Any], others: list[str]) -> None:
    """The mail server's log against what was asked."""
    arrived = play.arrivals()
    copies = Counter(len(times) for one, times in arrived.items() if one in play.causes)
    play.require(set(copies) <= {1}, f"sent twice: {copies}")
    play.require(not play.of(OVER) & set(arrived), "something that is over was sent")
    play.require(not play.of("outcome_unknown") & set(arrived), "something that was resolved as sent was sent")
    play.require(not play.sent_before & set(arrived), "something that had been sent was sent again")
    missing = play.replayed - set(arrived)
    (audited,) = [sum(one["count"] for one in play.run("audit", "export") if one["what"] == "deliveries.replayed")]
    states = Counter(
        (play.store.redis.hget(play.store.key(f"delivery:{one}"), "state") or b"?").decode() for one in missing
    )
    play.require(set(states) <= {"unknown"}, f"replayed and never sent: {states}")
    play.require(all(one in arrived for one in others), "a bystander's mail was lost")
    harm = max(4 * figures["bystander_p95_before"], play.options.harm)
    play.require(figures["bystander_p95_during"] <= harm, "the bystander had to wait")
    figures |= {"arrived_once": copies[1], "held_as_unknown_after_the_kill": len(missing), "audited": audited}
    figures["slowest_command"] = max(play.steps, key=lambda step: float(step["seconds"]))
    figures["commands"] = len(play.steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=5000)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--pace", type=float, default=50)
    parser.add_argument("--off", type=float, default=0.05, help="share by which the pace may be missed")
    parser.add_argument("--quiet", type=int, default=50, help="mails of the bystander before")
    parser.add_argument("--harm", type=float, default=5.0, help="seconds of p95 that a bystander may wait at most")
    parser.add_argument("--no-chaos", dest="chaos", action="store_false")
    parser.add_argument("--json", action="store_true")
    play = Campaign(parser.parse_args())
    try:
        figures = campaign(play)
    finally:
        play.close()
    figures["broken"] = play.broken
    if play.options.json:
        print(json.dumps({**figures, "steps": play.steps}))
    else:
        for name, value in figures.items():
            print(f"{name:<32}{value}")
    return 1 if play.broken else 0


if __name__ == "__main__":
    sys.exit(main())
