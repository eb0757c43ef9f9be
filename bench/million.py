"""How long do the commands of the person on call take on a full ledger, and how much memory do they need?

    python bench/million.py [--records 1000000] [--failed 0.6] [--accounts 20] [--thorough] [--json]

Writes so many ended deliveries with the ledger's own script functions (not through publish and workers, which would
take an hour), then runs each command in a process of its own, as a person does, and measures its wall time, the CPU it
used, and its largest memory. The start of Python and the imports are in the times: `kinds` reads nothing, to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from postier.ledger.accounts import configure
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.payload import Payload, seal_payload
from postier.ledger.store import Store, script_source
from postier.schemas.envelope import new_event_id
from postier.schemas.events import KINDS, Recipient
from postier.settings.config import read_registry
from postier.settings.seal import Sealer

HERE = Path(__file__).parent
BATCH = 500
CAUSES = (
    ("recipient_refused", "550", "5.1.1", "no such user here"), ("email_refused", "554", "5.7.1", "looks like spam"),
    ("temporary", "451", "4.3.0", "try again later"), ("refused", "550", "5.0.0", "no"),
    ("sender_refused", "550", "5.7.1", "sender not allowed"), ("render", "", "", "field `name` is missing"),
    ("crashed", "", "", ""), ("outcome_unknown", "", "", ""), ("rate_limited", "450", "4.7.1", "slow down"),
    ("unreachable", "", "", "connection refused"),
)  # fmt: skip
LOAD = """
for i = 1, #ARGV, 11 do
  local id, state, cause, account, kind, at = unpack(ARGV, i, i + 5)
  local event = 'e' .. id
  redis.call('HSET', P .. 'delivery:' .. id, 'state', state, 'fence', 1, 'attempt', 1, 'event', event, 'tenant',
    'school', 'kind', kind, 'version', 1, 'account', account, 'class', 'b', 'on_unknown', 'hold', 'accepted_at', at,
    'ended_at', at, 'deadline', at + 172800000000, 'recipient', 's***@e***', 'rkey', ARGV[i + 9], 'message_id',
    '<' .. id .. '@example.org>', 'key', 'school:' .. event, 'code', ARGV[i + 6], 'enhanced', ARGV[i + 7], 'words',
    ARGV[i + 8])
  if state ~= 'sent' then
    redis.call('HSET', P .. 'delivery:' .. id, 'cause', cause)
    redis.call('SET', P .. 'payload:' .. id, ARGV[i + 10])
    redis.call('RPUSH', P .. 'history:' .. id, at .. ' ' .. cjson.encode({ what = state, cause = cause, attempt = 1,
      account = account, words = ARGV[i + 8] }))
  else
    redis.call('HSET', P .. 'delivery:' .. id, 'provider_id', 'p-' .. id)
    redis.call('HSET', P .. 'provider', 'p-' .. id, id)
  end
  redis.call('SET', P .. 'key:school:' .. event, 'f ' .. event .. ' ' .. id, 'EX', 604800)
  finish(id, state, false, at)
end
write_together()
"""


def load(store: Store, records: int, failed: float, accounts: int, sealer: Sealer) -> list[tuple[str, str]]:
    """Write the records, those that failed with a sealed example as their content; some of their (id, state)."""
    chance = random.Random(1)
    text = script_source("records")[0].partition("-- Remove records")[0] + LOAD
    script = store.redis.register_script(text)
    kept: list[tuple[str, str]] = []
    contents = {kind: event.example().model_dump_json(exclude_none=True).encode() for kind, event in KINDS.items()}
    now = store.now()
    for start in range(0, records, BATCH):
        args: list[Any] = []
        for number in range(start, min(records, start + BATCH)):
            cause, code, enhanced, words = CAUSES[number % len(CAUSES)]
            bad = chance.random() < failed
            state = "sent" if not bad else "unknown" if cause == "outcome_unknown" else "failed"
            at = now - int((records - number) / records * 86_400e6)
            kind = ("data_change", "reset_link", "contact_form")[number % 3]
            identity = new_event_id()
            reply = (code, enhanced, words) if bad else ("250", "2.0.0", "ok")
            person = Recipient.model_construct(address=f"p{number}@example.org", name="Sam Okafor", locale="en")
            content = seal_payload(sealer, identity, Payload(contents[kind], person, None)) if bad else b""
            account = f"a{chance.randrange(accounts):02}"
            args += (identity, state, cause, account, kind, at, *reply, f"{number:024x}", content)
            if number % (records // 50 + 1) == 0:
                kept.append((identity, state))
        script(keys=[store.prefix], args=args)
    return kept


def timed(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run one command in a child; wall seconds, its largest memory in MB, and its lines."""
    # The kernel's own largest memory of a process counts what its parent had before the exec; VmHWM does not.
    code = (
        "import os, sys; from postier.console.main import main; code = main(sys.argv[1:]); used = os.times(); "
        "peak = open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]; "
        "print(used.user + used.system, peak, file=sys.stderr); sys.exit(code)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - start
    lines = done.stdout.splitlines()
    *_, cpu, memory = done.stderr.split()
    return {
        "command": " ".join(arguments), "seconds": round(seconds, 2), "cpu": round(float(cpu), 2),
        "MB": round(int(memory) / 1024), "lines": len(lines), "code": done.returncode,
        "first": lines[0] if lines else done.stderr[-300:],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--failed", type=float, default=0.6)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--thorough", action="store_true", help="also what looks at every record")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postier-bench-") as name:
        folder = Path(name)
        rows = "".join(
            f'[accounts.a{n:02}]\ndriver = "null"\nsender = {{ address = "a{n:02}@example.org" }}\n'
            for n in range(options.accounts)
        )
        (folder / "accounts.toml").write_text(rows + '[tenants.school]\nallowed_hosts = ["app.example.org"]\n')
        with EmbeddedServer(folder / "redis", fsync="no", maxmemory="12gb") as server:
            measure(options, server, folder)


def measure(options: argparse.Namespace, server: EmbeddedServer, folder: Path) -> None:
    """Load, run the commands, print."""
    store = Store(server.url, timeout=30)
    configure(store, read_registry(folder / "accounts.toml"))
    start = time.monotonic()
    key = Sealer.new_key()
    kept = load(store, options.records, options.failed, options.accounts, Sealer.from_text(key))
    loaded = time.monotonic() - start
    environment = {
        **os.environ, "POSTIER_REDIS_URL": server.url, "POSTIER_ACCOUNTS_FILE": str(folder / "accounts.toml"),
        "POSTIER_SEAL_KEYS": key,
    }  # fmt: skip
    sent = next(identity for identity, state in kept if state == "sent")
    failed = next(identity for identity, state in kept if state == "failed")
    group = json.loads(timed(["failed", "--json"], environment)["first"])["id"]
    commands = [
        ["kinds"], ["status", failed], ["status", f"<{failed}@example.org>"], ["status", f"e{failed}"],
        ["status", f"p-{sent}"], ["failed", "--json"], ["failed", "--account", "a07"], ["failed", "--since", "1h"],
        ["failed", "--text", "spam"], ["failed", "list"], ["failed", "list", "--text", "spam"],
        ["failed", "list", "--group", group],
        ["failed", "list", "--account", "a07", "--since", "2h"], ["deliveries", "list"],
        ["deliveries", "list", "--state", "sent", "--account", "a07"], ["unknown", "list"], ["top", "--once"],
        ["doctor"],
    ]  # fmt: skip
    if options.thorough:
        ids = str(folder / "out.jsonl")
        commands += [
            ["failed", "replay", "--group", group, "--dry-run"], ["failed", "replay", "--all", "--dry-run"],
            ["export", ids], ["doctor", "--indexes"], ["erase", "nobody@example.org", "--tenant", "school", "--yes"],
        ]  # fmt: skip
    rows = [timed(command, environment) for command in commands]
    used = store.redis.info("memory")["used_memory"] / 2**20
    store.close()
    if options.json:
        print(json.dumps({"records": options.records, "redis_MB": round(used), "rows": rows}))
        return
    print(f"{options.records} records loaded in {loaded:.0f} s; Redis uses {used:.0f} MB")
    for row in rows:
        spent = f"{row['seconds']:7.2f} s {row['cpu']:6.2f} s CPU {row['MB']:5} MB"
        print(f"{spent}  exit {row['code']}  {row['lines']:6} lines  {row['command']}")


if __name__ == "__main__":
    main()
