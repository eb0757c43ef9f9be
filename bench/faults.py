"""The fault campaign: every row of the fault matrix, injected for real, judged by the wire and the ledger.

    python bench/faults.py [--rows F1,F10] [--seeds 1] [--full] [--json] [--save]

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
        "row": row.name, "fault": row.fault, "bound": row.bound, "seed": seed, **found,
        "took_s": round(time.monotonic() - began, 1), **({"folder": str(folder)} if keep else {}),
    }  # fmt: skip


def line(result: dict[str, Any]) -> str:
    """One row of the table."""
    recovery = "-" if result["recovery_s"] is None else f"{result['recovery_s']:.1f}/{result['recovery_bound_s']:g} s"
    extra = "-" if result["extra"] is None else f"{result['extra']}/{result.get('allowed_extra', 0)}"
    lost = "-" if result["lost"] is None else str(result["lost"])
    words = "; ".join([*result["failed"], *result["notes"]]).replace("|", "/").replace("\n", " ")
    return (
        f"| {result['row']} | {result['fault']} | {result['seed']} | {result['accepted']} | {lost} | {extra} "
        f"| {recovery} | {result['bound']} | {'pass' if result['passed'] else '**NOT PASSED**'} | {words} |"
    )


HEAD = (
    "| row | fault | seed | accepted | lost | extra/allowed | recovery/bound | expected | verdict | remarks |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="F1,F10 (all without)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row, with seeds 1, 2, ...")
    parser.add_argument("--full", action="store_true", help="shipping lease and the matrix' durations")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="write bench/results/faults-<date>.md and .json")
    parser.add_argument("--keep", action="store_true", help="keep each run's folder and print tracebacks")
    options = parser.parse_args()
    wanted = [name.strip().upper() for name in options.rows.split(",") if name.strip()] or sorted(ROWS, key=order)
    if unknown := [name for name in wanted if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    if not options.json:
        print(HEAD, flush=True)
    results = []
    for name in wanted:
        for seed in range(1, options.seeds + 1):
            results.append(run(ROWS[name], seed, full=options.full, keep=options.keep))
            if not options.json:
                print(line(results[-1]), flush=True)
    passed = {name for name in wanted if all(one["passed"] for one in results if one["row"] == name)}
    how = "full" if options.full else "short"
    words = f"{len(passed)} of {len(wanted)} rows passed, {len(results)} runs, {how} durations"
    if options.json:
        print(json.dumps({"summary": words, "results": results}))
    else:
        print(f"\n{words}")
    if options.save:
        save(results, "shipping durations" if options.full else "short durations")
    return 0 if len(passed) == len(wanted) else 1


def save(results: list[dict[str, Any]], how: str) -> None:
    """Keep the table with its date, machine and commands; rows run again on the same day replace their old lines."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"faults-{now:%Y-%m-%d}.json"
    before = json.loads(path.read_text()) if path.exists() else {"results": [], "commands": []}
    again = {one["row"] for one in results}
    kept = [one for one in before["results"] if one["row"] not in again]
    every = sorted(kept + results, key=lambda one: (order(one["row"]), one["seed"]))
    rows = {one["row"] for one in every}
    passed = {name for name in rows if all(one["passed"] for one in every if one["row"] == name)}
    facts = {
        "date": now.isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        "commands": [*before.get("commands", []), f"{' '.join(['python bench/faults.py', *sys.argv[1:]])} ({how})"],
        "summary": f"{len(passed)} of {len(ROWS)} rows passed, {len(every)} runs",
        "not passed": sorted(rows - passed, key=order),
    }
    path.write_text(json.dumps({**facts, "results": every}, indent=1) + "\n")
    told = {**facts, "commands": "; ".join(f"`{one}`" for one in facts["commands"])}
    text = "# Fault campaign\n\n" + "".join(f"- {key}: {value}\n" for key, value in told.items())
    path.with_suffix(".md").write_text(text + "\n" + HEAD + "\n" + "\n".join(map(line, every)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
