"""The fault campaign: every row of the fault matrix, injected for real, judged by the wire and the ledger.

    python bench/faults.py [--rows F1,F10] [--seeds 1-5] [--full] [--json] [--save] [--resume]

Runs seed by seed, so that an end in the middle leaves whole passes. `--save` writes after every run, merged with what
was saved that day: a run of the same row, seed and durations takes its old one's place. `--resume` leaves out what is
saved already. How far it is, and about how long it will take, goes to the standard error.

`--full` takes the shipping lease (15 s) and the matrix' durations; without it the lease is 3 s, long waits are
shortened, and the table says so. A row this machine cannot inject counts as not passed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from campaign.kit import ROWS, CannotInject, Row, arena  # noqa: E402
from campaign.rows import load  # noqa: E402

load()


def order(name: str) -> int:
    """F2 before F10."""
    return int(name[1:])


def run(row: Row, seed: int, *, full: bool, keep: bool) -> dict[str, Any]:
    """One run of one row."""
    folder = Path(tempfile.mkdtemp(prefix=f"postier-{row.name}-"))
    began = time.monotonic()
    found: dict[str, Any] = {"accepted": 0, "lost": None, "extra": None, "recovery_s": None, "notes": []}
    try:
        with arena(folder, seed, full=full) as play:
            try:
                row.run(play)
                found = play.verdict()
            except CannotInject as error:
                found |= {"passed": False, "failed": [f"cannot be injected here: {error}"]}
            except Exception as error:
                if keep:
                    traceback.print_exc()
                found |= {"passed": False, "failed": [f"the row broke off: {type(error).__name__}: {error}"]}
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "row": row.name, "fault": row.fault, "bound": row.bound, "seed": seed, "full": full, **found,
        "took_s": round(time.monotonic() - began, 1), **({"folder": str(folder)} if keep else {}),
    }  # fmt: skip


def line(result: dict[str, Any]) -> str:
    """One row of the table."""
    recovery = "-" if result["recovery_s"] is None else f"{result['recovery_s']:.1f}/{result['recovery_bound_s']:g} s"
    extra = "-" if result["extra"] is None else f"{result['extra']}/{result.get('allowed_extra', 0)}"
    lost = "-" if result["lost"] is None else str(result["lost"])
    words = "; ".join([*result["failed"], *result["notes"]]).replace("|", "/").replace("\n", " ")
    seed = f"{result['seed']}{' full' if result.get('full') else ''}"
    return (
        f"| {result['row']} | {result['fault']} | {seed} | {result['accepted']} | {lost} | {extra} "
        f"| {recovery} | {result['bound']} | {'pass' if result['passed'] else '**NOT PASSED**'} | {words} |"
    )


HEAD = (
    "| row | fault | seed | accepted | lost | extra/allowed | recovery/bound | expected | verdict | remarks |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def seeds(text: str) -> list[int]:
    """`3` is 1 to 3, `2-5` a range, `1,4` a list."""
    try:
        if "," in text:
            found = [int(part) for part in text.split(",")]
        else:
            low, dash, high = text.partition("-")
            found = list(range(int(low) if dash else 1, int(high or low) + 1))
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError("seeds are 3 (1 to 3), 2-5 or 1,4")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="F1,F10 (all without)")
    parser.add_argument("--seeds", type=seeds, default=[1], help="3 (1 to 3), 2-5 or 1,4")
    parser.add_argument("--full", action="store_true", help="shipping lease and the matrix' durations")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="merge into bench/results/faults-<date>.md and .json")
    parser.add_argument("--resume", action="store_true", help="with --save: leave out what is saved already")
    parser.add_argument("--keep", action="store_true", help="keep each run's folder and print tracebacks")
    options = parser.parse_args()
    wanted = [name.strip().upper() for name in options.rows.split(",") if name.strip()] or sorted(ROWS, key=order)
    if unknown := [name for name in wanted if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    table = Table(HERE / "results" / f"faults-{datetime.now(UTC):%Y-%m-%d}.json", full=options.full)
    plan = [(name, seed) for seed in options.seeds for name in wanted]
    if options.resume:
        plan = [(name, seed) for name, seed in plan if not table.knows(name, seed)]
    if options.save:
        table.note_command()
    if not options.json:
        print(HEAD, flush=True)
    results: list[dict[str, Any]] = []
    began = time.monotonic()
    for number, (name, seed) in enumerate(plan):
        left = table.expected(plan[number:])
        print(
            f"[{number + 1}/{len(plan)}] {name} seed {seed}; about {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
        results.append(run(ROWS[name], seed, full=options.full, keep=options.keep))
        if not options.json:
            print(line(results[-1]), flush=True)
        if options.save:
            table.add(results[-1])
    passed = {name for name in wanted if all(one["passed"] for one in results if one["row"] == name)}
    words = (
        f"{len(passed)} of {len(wanted)} rows passed, {sum(one['passed'] for one in results)} of {len(results)} runs, "
        f"{'full' if options.full else 'short'} durations, {(time.monotonic() - began) / 60:.1f} min"
    )
    if options.json:
        print(json.dumps({"summary": words, "results": results}))
    else:
        print(f"\n{words}")
    return 0 if len(passed) == len(wanted) else 1


class Table:
    """The day's runs with date, machine and commands, as JSON and as a table; kept whole after every run."""

    def __init__(self, path: Path, *, full: bool) -> None:
        self.path = path
        self.full = full
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.results: list[dict[str, Any]] = kept.get("results", [])
        self.commands: list[str] = kept.get("commands", [])

    def knows(self, row: str, seed: int) -> bool:
        """Whether this run is saved, with these durations."""
        return any(self._key(one) == (row, seed, self.full) for one in self.results)

    def expected(self, plan: list[tuple[str, int]]) -> float:
        """Seconds that these runs took last time; 13 for one that nobody has run yet."""
        took = {one["row"]: one["took_s"] for one in self.results if one.get("full", False) == self.full}
        return sum(took.get(row, 13.0) for row, _ in plan)

    def note_command(self) -> None:
        """The command that makes what follows."""
        command = " ".join(["python bench/faults.py", *sys.argv[1:]])
        if command not in self.commands:
            self.commands.append(command)

    def add(self, result: dict[str, Any]) -> None:
        """Put one run in the place of its forerunner, and write both files."""
        self.results = [one for one in self.results if self._key(one) != self._key(result)] + [result]
        self.results.sort(key=lambda one: (order(one["row"]), one.get("full", False), one["seed"]))
        rows = {one["row"] for one in self.results}
        passed = {name for name in rows if all(one["passed"] for one in self.results if one["row"] == name)}
        good = sum(one["passed"] for one in self.results)
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
            "commands": self.commands,
            "summary": f"{len(passed)} of {len(ROWS)} rows passed in every run, {good} of {len(self.results)} runs",
            "not passed": sorted(rows - passed, key=order),
            "not run": sorted(set(ROWS) - rows, key=order),
        }
        self.path.parent.mkdir(exist_ok=True)
        self._write(self.path, json.dumps({**facts, "results": self.results}, indent=1) + "\n")
        told = {**facts, "commands": "; ".join(f"`{one}`" for one in self.commands)}
        told |= {name: ", ".join(facts[name]) or "none" for name in ("not passed", "not run")}
        text = "# Fault campaign\n\n" + "".join(f"- {key}: {value}\n" for key, value in told.items())
        self._write(self.path.with_suffix(".md"), text + "\n" + HEAD + "\n" + "\n".join(map(line, self.results)) + "\n")

    @staticmethod
    def _key(one: dict[str, Any]) -> tuple[str, int, bool]:
        return one["row"], one["seed"], one.get("full", False)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        fresh = path.with_suffix(path.suffix + ".new")
        fresh.write_text(text)
        fresh.replace(path)


if __name__ == "__main__":
    sys.exit(main())
