"""Whether the time of a refusal tells how much of a secret was right: Welch's test, twice.

    python bench/timing.py [--tries 10000] [--seed 1] [--json]

A wrong secret that differs from the right one in its last letter, and one that differs in every letter, are tried in
pairs of random order, `--tries` of each, on every path that compares a secret with what a stranger sent:

- `confirmation link`: `Senders.look` over a real Redis; what is compared is a hash, so prefixes mean nothing to it
- `confirmation hash`: the same with the hash in place of the token, which no stranger can do: the comparison alone
- `sender's state`: a wrong link of a sender that is waited for, and one of a sender that nobody asked
- `demo password`: the login of the demo's mail server
- `seal`: the tag of a sealed value, which differs in its last octet or in all of its sixteen

A path fails when both runs find a difference (p < 0.01) in the same direction: one run alone finds one in a hundred by
chance, and more on cores that others use. The `control` stops at the first letter that differs; a machine on which it
is not found out is too noisy to say anything. Times above the 90th percentile of both together are left out: they are
other people's work. `finds` is the difference of means from which on p is below 0.01. Exit code 1 when a path fails or
the control is not found out.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stage import TENANT

from postier.console.demo_catcher import Catcher
from postier.ledger import senders
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.settings.seal import Sealer, Unsealable

LIMIT = 0.01
Compared = tuple[Callable[[Any], object], Any, Any]  # what compares, a near miss, a wide one


def welch(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """t, its two-sided p, and the standard error. With thousands of degrees of freedom Student's t is normal."""
    error = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    t = (statistics.fmean(one) - statistics.fmean(other)) / error
    return t, math.erfc(abs(t) / math.sqrt(2)), error


def timed(compared: Compared, tries: int, dice: random.Random) -> tuple[list[float], list[float]]:
    """Nanoseconds of each try, without the slowest tenth of all."""
    attempt, near, far = compared
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(tries):
        first = dice.random() < 0.5
        for is_near in (first, not first):
            given = near if is_near else far
            given = given[:1] + given[1:]  # a copy each: where an object lies in memory is worth some nanoseconds
            began = time.perf_counter_ns()
            attempt(given)
            found[is_near].append(time.perf_counter_ns() - began)
    limit = statistics.quantiles(found[True] + found[False], n=10)[-1]
    return [took for took in found[True] if took <= limit], [took for took in found[False] if took <= limit]


def wrong(secret: str) -> tuple[str, str]:
    """The secret with another last letter, and with every letter another."""
    other = ["B" if letter == "A" else "A" for letter in secret]
    return secret[:-1] + other[-1], "".join(other)


def control() -> Compared:
    """How it must not be done."""
    right = secrets.token_hex(32)

    def compare(given: str) -> bool:
        return all(one == other for one, other in zip(given, right, strict=True))

    return compare, *wrong(right)


@contextmanager
def paths(folder: Path) -> Iterator[dict[str, Compared]]:
    """Every path that compares."""
    with EmbeddedServer(folder / "redis", fsync="no") as server, contextlib.closing(Store(server.url)) as store:
        book = senders.Senders(store, who="bench")
        identity, secret = book.add("office@brand.example", tenant=TENANT).token.split(".")
        near, far = (f"{identity}.{one}" for one in wrong(secret))
        yield {
            "confirmation link": (book.look, near, far),
            "confirmation hash": hashes(book, identity),
            "sender's state": (book.look, far, f"{'0' * 32}.{secret}"),
            "demo password": passwords(folder),
            "seal": seals(),
            "control": control(),
        }


def hashes(book: senders.Senders, identity: str) -> Compared:
    """The comparison of the link's hash, without Redis around it."""
    page, now, told = book._book.read(), book._store.now(), [""]
    alone = senders.Senders.__new__(senders.Senders)
    alone._store = SimpleNamespace(now=lambda: now)  # type: ignore[assignment]
    token, real = f"{identity}.{'A' * 43}", senders._digest

    def digest(*_: str) -> str:
        return told[0]

    def attempt(given: str) -> object:
        told[0], senders._digest = given, digest
        try:
            return alone._opened(page, token)
        finally:
            senders._digest = real

    return attempt, *wrong(str(senders._data(page, f"s:{identity}")["hash"]))


def passwords(folder: Path) -> Compared:
    """The demo's login."""
    right = secrets.token_hex(16)
    (folder / "anna").write_text(right)
    catcher = Catcher.__new__(Catcher)
    catcher._passwords = folder

    def login(given: str) -> object:
        data = SimpleNamespace(login=b"anna", password=given.encode())
        return catcher._authenticate(None, None, None, "PLAIN", data)

    return login, *wrong(right)


def seals() -> Compared:
    """A sealed value with a wrong tag."""
    sealer = Sealer.from_text(Sealer.new_key())
    sealed = sealer.seal(b"a password", b"place")

    def unseal(given: bytes) -> None:
        with contextlib.suppress(Unsealable):
            sealer.open(given, b"place")

    return unseal, sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:-16] + bytes(octet ^ 1 for octet in sealed[-16:])


def run(compared: Compared, tries: int, dice: random.Random) -> dict[str, float]:
    """One run over one path."""
    near, far = timed(compared, tries, dice)
    t, p, error = welch(near, far)
    found = {"near_ns": statistics.fmean(near), "far_ns": statistics.fmean(far), "finds_ns": 2.576 * error}
    return {**{key: round(value, 1) for key, value in found.items()}, "t": round(t, 2), "p": round(p, 4)}


def said(row: dict[str, float]) -> str:
    """The row as a person reads it."""
    return (
        f"near {row['near_ns']:10.1f} ns, far {row['far_ns']:10.1f} ns, finds {row['finds_ns']:8.1f} ns, "
        f"t {row['t']:7.2f}, p {row['p']:.4f}"
    )


def differs(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether both runs found the same difference."""
    return max(one["p"], other["p"]) < LIMIT and (one["t"] > 0) == (other["t"] > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="postier-bench-") as folder, paths(Path(folder)) as found:
        gc.disable()
        for number in (1, 2):
            for name, compared in found.items():
                timed(compared, 200, dice)
                runs.setdefault(name, []).append(run(compared, options.tries, dice))
                if not options.json:
                    print(f"run {number} {name:17} {said(runs[name][-1])}", flush=True)
    passed = {name: differs(*both) == (name == "control") for name, both in runs.items()}
    if options.json:
        print(json.dumps({name: {"runs": both, "pass": passed[name]} for name, both in runs.items()}))
    else:
        print("; ".join(f"{name}: {'pass' if good else 'FAIL'}" for name, good in passed.items()))
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
