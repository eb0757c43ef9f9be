"""Erasure: what the ledger knows of one person in one tenant goes; that there was a mail stays.

A person is found as the recipient (by the keyed fingerprint on the record) and wherever else the address stands: in
the content of mail to others (a visitor, an actor, a changed field, a link), in idempotency keys, in what servers and
people said, and in the inbox. Settings and the audit are told of, not changed: an address there is a decision of the
tenant's, or the record of one. Masked addresses, keyed fingerprints in the audit, and what Redis has on disk until it
rewrites its files are not looked for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from postier.ledger.audit import Audit
from postier.ledger.inbox import open_refused
from postier.ledger.lanes import tidy_lanes
from postier.ledger.mentions import Mentions
from postier.ledger.payload import Unsealable
from postier.ledger.store import Store, glob, translated
from postier.schemas.address import address_key
from postier.schemas.events import KINDS, Recipient
from postier.schemas.events.base import recipient_key as superseded_key
from postier.settings.seal import Sealer

_SCAN = 2000
_STEP = 500
_PAGE = 1000
_OWN = 3


def recipient_keys(sealer: Sealer, address: str) -> list[str]:
    """The fingerprints an address may have in the ledger: one for each seal key that was ever first."""
    text = address_key(address).encode()
    return [hmac.new(key, text, hashlib.sha256).hexdigest()[:24] for key in sealer.fingerprint_keys]


@dataclass(slots=True)
class Erased:
    """What an erasure did.

    `looked` records were looked at; `erased` were the person's, `named` others whose mail named them. `inbox` entries
    were removed. `under_way` have to be done again when their attempt is over, `unopened` could not be looked into for
    want of their seal key. `stays` says where the address stands on.
    """

    looked: int = 0
    erased: int = 0
    named: int = 0
    inbox: int = 0
    under_way: int = 0
    unopened: int = 0
    stays: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON-ready object."""
        return {name: getattr(self, name) for name in self.__slots__}


class Erasure:
    """Removes one person (an address from `parse_address`) from one tenant's part of a ledger, in the name of `who`.

    Every record is looked at and every content opened, in bounded steps. All raise LedgerUnavailable; doing it again is
    safe, and is what finishes deliveries that were under way. The audit has a keyed fingerprint, not the address.
    """

    def __init__(self, store: Store, who: str, address: str, tenant: str, sealer: Sealer) -> None:
        self._store = store
        self._who = who[:80]
        self._tenant = tenant
        self._sealer = sealer
        self._address = address
        self._keys = recipient_keys(sealer, address)
        self._mentions = Mentions(address)
        self._done = Erased()

    def run(self, told: Callable[[int], None] | None = None) -> Erased:
        """Do it; `told` hears how many records were looked at."""
        # The inbox comes first: what workers take from it meanwhile is a record by the time those are looked at.
        self._empty_inbox()
        for ids in self._records():
            self._look_at(ids)
            if told is not None:
                told(self._done.looked)
        tidy_lanes(self._store)
        self._forget_names()
        self._done.stays = [*self._settings(), *self._audited()]
        done = self._done
        details = {
            "tenant": self._tenant, "fingerprint": self._keys[0], "named": done.named, "inbox": done.inbox,
            "under_way": done.under_way, "unopened": done.unopened,
        }  # fmt: skip
        Audit(self._store).record(
            who=self._who, what="person.erased", subject=self._tenant, count=done.erased, details=details
        )
        return done

    # --- records

    def _records(self) -> Iterator[list[str]]:
        prefix = self._store.key("delivery:")
        for names in self._scan(glob(prefix) + "*"):
            ids = [name.removeprefix(prefix) for name in names]
            for at in range(0, len(ids), _STEP):
                yield ids[at : at + _STEP]

    def _look_at(self, ids: list[str]) -> None:
        self._done.looked += len(ids)
        parts, keys = self._mentions.parts, self._keys
        answers = self._store.run("look", (self._tenant, len(keys), *keys, len(parts), *parts, *ids))
        seen = [(one, answer) for one, answer in zip(ids, answers, strict=True) if answer]
        if not seen:
            return
        with translated():
            contents = self._store.redis.mget([self._store.key(f"payload:{one}") for one, _ in seen])
        for (delivery_id, answer), payload in zip(seen, contents, strict=True):
            own = answer == _OWN
            told, key = self._told(delivery_id) if answer > 1 else (False, False)
            content = not own and self._is_in_content(delivery_id, payload)
            if own or content or told or key:
                self._erase(delivery_id, own, content, told, key)

    def _told(self, delivery_id: str) -> tuple[bool, bool]:
        """Whether the words and names in a record and its timeline name the person, and whether its key may."""
        with translated():
            pipe = self._store.redis.pipeline(transaction=False)
            pipe.hgetall(self._store.key(f"delivery:{delivery_id}"))
            pipe.lrange(self._store.key(f"history:{delivery_id}"), 0, -1)
            record, lines = pipe.execute()
        texts = [value for name, value in record.items() if name not in (b"message_id", b"key")]
        texts += [line.partition(b" ")[2] for line in lines]
        key = record.get(b"key", b"").decode("utf-8", "replace")
        return any(self._mentions.in_json(text) for text in texts), self._mentions.in_key(key)

    def _is_in_content(self, delivery_id: str, payload: bytes | None) -> bool:
        if not payload:
            return False
        try:
            return self._mentions.in_json(self._sealer.open(payload, delivery_id.encode()))
        except Unsealable:
            self._done.unopened += 1
            return False

    def _erase(self, delivery_id: str, *person: bool) -> None:
        (answer,) = self._store.run("records", ("erase", self._who, delivery_id, *map(int, person)))
        if answer == 1:
            self._done.erased += person[0]
            self._done.named += not person[0]
        self._done.under_way += answer == 0

    # --- names of keys

    def _forget_names(self) -> None:
        """Keys that producers named, and those that hold a fingerprint: cooldowns, the newest of a kind."""
        for kind in KINDS:
            newest = superseded_key(kind, Recipient.model_construct(address=self._address))
            digest = hashlib.sha256(f"{kind}\0{newest}".encode()).hexdigest()[:32]
            self._remove(f"latest:{self._tenant}:{digest}")
        prefix = self._store.key(f"key:{self._tenant}:")
        for names in self._scan(glob(prefix) + "*" + _any_case(self._mentions.parts[-1]) + "*"):
            for name in names:
                if self._mentions.in_key(name.removeprefix(prefix)):
                    self._remove(name.removeprefix(self._store.prefix))
        for names in self._scan(glob(self._store.key(f"event:{self._tenant}:")) + "*"):
            with translated():
                keys = self._store.redis.mget(names)
            for name, key in zip(names, keys, strict=True):
                if key and self._mentions.in_key(key.decode("utf-8", "replace")):
                    self._remove(name.removeprefix(self._store.prefix))
        for names in self._scan(glob(self._store.key(f"allowance:cooldown:{self._tenant}:")) + "*"):
            for name in names:
                if name.rpartition(":")[2] in self._keys:
                    self._remove(name.removeprefix(self._store.prefix))

    def _remove(self, name: str) -> None:
        with translated():
            self._store.redis.unlink(self._store.key(name))

    def _scan(self, pattern: str) -> Iterator[list[str]]:
        cursor = 0
        while True:
            with translated():
                cursor, names = self._store.redis.scan(cursor, match=pattern, count=_SCAN)
            if names:
                yield [name.decode("utf-8", "replace") for name in names]
            if cursor == 0:
                return

    # --- inbox

    def _empty_inbox(self) -> None:
        for raw in self._lines("inbox"):
            if self._is_about(raw):
                with translated():
                    self._done.inbox += self._store.redis.lrem(self._store.key("inbox"), 0, raw)
        self._done.under_way += sum(1 for raw in self._lines("inbox:taken") if self._is_about(raw))
        for row in self._lines("inbox:refused"):
            try:
                named = self._is_about(open_refused(self._sealer, row))
            except Unsealable:
                self._done.unopened += 1
                continue
            if named:
                with translated():
                    self._done.inbox += self._store.redis.lrem(self._store.key("inbox:refused"), 0, row)

    def _lines(self, name: str) -> list[bytes]:
        """A list of which others take meanwhile: all of it, read from its end so that nothing is passed over."""
        found: list[bytes] = []
        last = -1
        while True:
            with translated():
                page = self._store.redis.lrange(self._store.key(name), last - _PAGE + 1, last)
            found[:0] = page
            if len(page) < _PAGE:
                return list(dict.fromkeys(found))
            last -= _PAGE

    def _is_about(self, raw: bytes) -> bool:
        """Whether an envelope names the person, and may be of this tenant: what cannot be read may be anybody's."""
        if not self._mentions.in_json(raw):
            return False
        try:
            envelope = json.loads(raw)
        except (ValueError, RecursionError):
            return True
        tenant = envelope.get("tenant") if isinstance(envelope, dict) else None
        return not isinstance(tenant, str) or tenant == self._tenant

    # --- what stays

    def _settings(self) -> Iterator[str]:
        """Accounts, forms and senders that have the address, and their histories."""
        with translated():
            text = self._store.redis.hget(self._store.key("registry"), "text")
            book = self._store.redis.hgetall(self._store.key("book"))
        told = json.loads(text) if text else {}
        for section in ("accounts", "tenants"):
            for name, entry in told.get(section, {}).items():
                if self._mentions.in_json(json.dumps(entry).encode()):
                    yield f"{section}.{name}"
        for name, entry in book.items():
            if name.startswith(b"s:") and self._mentions.in_json(entry):
                yield f"senders.{name[2:].decode()}"
        prefix = self._store.key("book:history:")
        for names in self._scan(glob(prefix) + "*"):
            for name in names:
                with translated():
                    lines = self._store.redis.lrange(name, 0, -1)
                if any(self._mentions.in_json(line.partition(b" ")[2]) for line in lines):
                    yield f"history of {name.removeprefix(prefix)}"

    def _audited(self) -> Iterator[str]:
        count, after = 0, "-"
        while True:
            with translated():
                rows = self._store.redis.xrange(self._store.key("audit"), after, "+", count=_PAGE)
            count += sum(any(map(self._mentions.in_json, fields.values())) for _, fields in rows)
            if len(rows) < _PAGE:
                break
            after = f"({rows[-1][0].decode()}"
        if count:
            yield f"{count} lines of the audit"


def _any_case(text: str) -> str:
    """A pattern for SCAN that takes ASCII letters in any case."""
    return "".join(f"[{c}{c.upper()}]" if "a" <= c <= "z" else glob(c) for c in text)
