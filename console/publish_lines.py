"""JSON Lines into the ledger: any length of input in bounded memory, one answer a line, safe to repeat."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Sequence
from typing import Any

from postier.client.postier import Answer, Postier
from postier.ledger.publish import Accepted
from postier.schemas.edge import read_envelope
from postier.schemas.envelope import Envelope
from postier.schemas.errors import InvalidEvent, LedgerUnavailable
from postier.schemas.refusals import MAX_EVENT, too_large

BATCH = 200
_CHUNK = 65_536

Line = tuple[int, bytes | None]  # its number from 1; None: longer than any event may be


def batches(descriptor: int, size: int = BATCH) -> Iterator[list[Line]]:
    """Lines that are not blank, in batches of up to `size`; a slow writer's lines do not wait for company."""
    number, rest, overlong = 0, b"", False
    batch: list[Line] = []
    while True:
        chunk = os.read(descriptor, _CHUNK)
        parts = (rest + chunk).split(b"\n")
        rest = parts.pop()
        if not chunk and (rest or overlong):
            parts.append(rest)
        for part in parts:
            number += 1
            if overlong or part.strip():
                batch.append((number, None if overlong or len(part) > MAX_EVENT else part))
            overlong = False
            if len(batch) >= size:
                yield batch
                batch = []
        if len(rest) > MAX_EVENT:
            rest, overlong = b"", True
        if batch and (not chunk or not select.select([descriptor], [], [], 0)[0]):
            yield batch
            batch = []
        if not chunk:
            return


def publish_batch(postier: Postier, lines: Sequence[Line], *, tenant: str | None, wait: float) -> list[Answer]:
    """Publish lines and answer in their order. While the ledger is away it tries again for `wait` seconds."""
    envelopes = [_read(raw, tenant) for _, raw in lines]
    answers: list[Answer] = [LedgerUnavailable("not tried")] * len(lines)
    pending = list(range(len(lines)))
    give_up = time.monotonic() + wait
    while True:
        got: Sequence[Answer]
        try:
            got = postier.publish_envelopes([envelopes[at] for at in pending])
        except LedgerUnavailable as error:
            got = [error] * len(pending)
        for at, answer in zip(pending, got, strict=True):
            answers[at] = answer
        away = [answer for answer in got if isinstance(answer, LedgerUnavailable)]
        pending = [at for at in pending if isinstance(answers[at], LedgerUnavailable)]
        pause = min(away[0].retry_after, 1.0) if away else 0.0
        if not pending or time.monotonic() + pause > give_up:
            return answers
        time.sleep(pause)


def _read(raw: bytes | None, tenant: str | None) -> Envelope | InvalidEvent:
    try:
        return too_large() if raw is None else read_envelope(raw, tenant=tenant)
    except InvalidEvent as error:
        return error


def answer_of(line: int, answer: Answer) -> dict[str, Any]:
    """The JSON answer for one line."""
    if isinstance(answer, Accepted):
        return {
            "line": line, "id": answer.id, "deliveries": list(answer.deliveries), "duplicate": answer.duplicate
        }  # fmt: skip
    if isinstance(answer, InvalidEvent):
        return {"line": line, "error": answer.as_dict()}
    error = {"code": "ledger_unavailable", "field": "", "reason": str(answer), "retry_after": answer.retry_after}
    return {"line": line, "error": error}
