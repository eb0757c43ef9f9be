"""What the tests of the command line share: a file of accounts, envelopes, and a worker's part played by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Reply, end, free, history, retry
from postier.ledger.store import Store
from tests.conftest import PATIENCE

ACCOUNTS = """
[accounts.office]
tenant = "school"
driver = "smtp"
sender = {{ address = "office@school.example", name = "School" }}
[accounts.office.options]
host = "127.0.0.1"
port = {port}
security = "starttls"
username = "office"
password = "file:{folder}/password"
{more}allow_hosts = ["127.0.0.1"]

[accounts.spare]
tenant = "school"
driver = "provider"
sender = {{ address = "spare@school.example" }}
options = {{ preset = "ses", region = "eu-west-1", username = "someone", password = "plain-text" }}

[tenants.school]
allowed_hosts = ["school.example"]
default_account = "office"

[tenants.other]
"""


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The whole answer as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The answer as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Answer]


def reset_link(address: str = "sam@example.org", **envelope: Any) -> dict[str, Any]:
    """An envelope of a reset link as a producer writes it."""
    data = {
        "recipient": address,
        "requested_at": "2026-01-01T00:00:00Z",
        "expires_at": "2099-01-01T00:00:00Z",
        "action_url": "https://school.example/reset",
    }
    return {"kind": "reset_link", "tenant": "school", "data": data} | envelope


def write_lines(path: Path, *envelopes: dict[str, Any] | str) -> str:
    """Write JSON Lines; strings as they are."""
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in envelopes))
    return str(path)


def publish(postier: Run, tmp_path: Path, *envelopes: dict[str, Any]) -> list[str]:
    """Publish envelopes and return their delivery ids."""
    answer = postier("publish", write_lines(tmp_path / "given.jsonl", *envelopes))
    assert answer.code == 0, answer.out + answer.err
    return [delivery for line in answer.lines for delivery in line["deliveries"]]


def end_all(store: Store, *, state: str = "failed", words: str = "no such user here", keep: int = 600) -> list[Claimed]:
    """As a worker does: claim what is due and end it in `state`."""
    claims = Claims(store, "tester", lease=15, crash_limit=3, keep_sent=keep)
    ended = []
    while handed := claims.claim(20, 20)[1]:
        for conversation in handed:
            for delivery in conversation.deliveries:
                line = history(
                    state, attempt=delivery.attempt, cause="recipient_refused", code=550, enhanced="5.1.1", words=words
                )
                reply = Reply(550, "5.1.1", words)
                claims.settle([end(delivery, reply, state=state, cause="recipient_refused", timeline=line)])
                ended.append(delivery)
            claims.settle([free(conversation.name, conversation.account, "good")])
    return ended


def try_in_vain(store: Store) -> None:
    """As a worker does: claim what is due, and let it wait an hour for its next attempt."""
    claims = Claims(store, "tester", lease=15, crash_limit=3, keep_sent=600)
    for conversation in claims.claim(20, 20)[1]:
        for delivery in conversation.deliveries:
            line = history("retried", attempt=delivery.attempt, cause="temporary", code=451)
            reply = Reply(451, "4.3.0", "later")
            claims.settle([retry(delivery, reply, delay=3600, spend=True, cause="temporary", timeline=line)])
        claims.settle([free(conversation.name, conversation.account, "good")])


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `condition` answers once it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.02)
    return found
