"""Accepting events: one script call for a batch, each event whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from postier.ledger.payload import Payload, seal_payload
from postier.ledger.store import Argument, Store
from postier.schemas.account import Account, Form, Registry, Tenant
from postier.schemas.address import address_key, mask_address
from postier.schemas.edge import admit
from postier.schemas.envelope import Envelope, new_event_id
from postier.schemas.errors import IdempotencyConflict, InvalidEvent, LedgerUnavailable
from postier.schemas.events import Recipient
from postier.settings.seal import Sealer

# Deliveries in one script call: a tenth of a second of Redis' time.
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `most` events of this `key` in `seconds`; `field` and `reason` say it to the producer of one too many.

    The key may end in the recipient's keyed fingerprint: `per_recipient`.
    """

    key: str
    most: int
    seconds: int
    field: str
    reason: str
    per_recipient: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """An event that passed the hard edge, with its recipients and the account it leaves by."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    account: Account
    allowances: tuple[Allowance, ...] = ()


def admit_and_route(envelope: Envelope, registry: Registry) -> Admitted:
    """The hard edge's last step with the registry: recipients, links, account. Raises InvalidEvent."""
    recipients = admit(envelope, registry)
    form = registry.tenants[envelope.tenant].forms.get(envelope.data.form() or "")
    try:
        account = registry.route(
            tenant=envelope.tenant,
            kind=envelope.kind,
            account=envelope.account,
            form_account=form.account if form else None,
        )
    except LookupError as error:
        raise InvalidEvent(str(error), field="account", code="no_account") from None
    return Admitted(
        envelope, recipients, account, tuple(_allowances(envelope, registry.tenants[envelope.tenant], form))
    )


def _allowances(envelope: Envelope, tenant: Tenant, form: Form | None) -> Iterator[Allowance]:
    seconds = tenant.cooldowns.get(envelope.kind, int((envelope.data.cooldown or timedelta()).total_seconds()))
    if seconds > 0 and envelope.data.cooldown is not None:
        reason = f"this recipient was sent a mail of this kind less than {seconds} seconds ago"
        key = f"cooldown:{tenant.name}:{envelope.kind}:{envelope.data.cooldown_key()}"
        yield Allowance(key, 1, seconds, "data.recipient", reason, per_recipient=True)
    if form is not None:
        reason = f"this form may send {form.per_hour} messages an hour"
        key = f"form:{tenant.name}:{envelope.data.form()}"
        yield Allowance(key, form.per_hour, 3600, "data.form_id", reason)
        reason = f"this tenant's forms may send {tenant.contact_per_hour} messages an hour"
        yield Allowance(f"forms:{tenant.name}", tenant.contact_per_hour, 3600, "tenant", reason)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ledger's answer: the event's id, one delivery id per recipient, and whether it was known before."""

    id: str
    deliveries: tuple[str, ...]
    duplicate: bool


def recipient_key(sealer: Sealer, address: str) -> str:
    """A keyed fingerprint of an address: tells equal recipients without telling who they are."""
    return sealer.keyed_fingerprint(address_key(address).encode())[:24]


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _batches(events: Sequence[Admitted]) -> Iterator[Sequence[Admitted]]:
    """As they may be written in one call: while a script runs, nobody else's does."""
    first = deliveries = 0
    for index, event in enumerate(events):
        deliveries += len(event.recipients)
        if deliveries > _AT_ONCE and index > first:
            yield events[first:index]
            first, deliveries = index, len(event.recipients)
    if first < len(events):
        yield events[first:]


class Publisher:
    """Writes admitted events to the ledger."""

    def __init__(self, store: Store, sealer: Sealer, *, keep_keys: int = 7 * 86_400) -> None:
        self._store = store
        self._sealer = sealer
        self._keep_keys = keep_keys

    def publish(self, events: Sequence[Admitted]) -> list[Accepted | InvalidEvent | LedgerUnavailable]:
        """Accept a batch in one round trip, or in several when it is large; answers in the same order.

        Raises LedgerUnavailable when Redis gave no answer: publishing the same events again is safe then. When it gave
        some, that error is the answer of all others.
        """
        answers: list[Accepted | InvalidEvent | LedgerUnavailable] = []
        for batch in _batches(events):
            try:
                answers += self._publish(batch)
            except LedgerUnavailable as error:
                if not answers:
                    raise
                answers += [error] * (len(events) - len(answers))
                break
        return answers

    def _publish(self, events: Sequence[Admitted]) -> list[Accepted | InvalidEvent | LedgerUnavailable]:
        args: list[Argument] = [self._keep_keys, len(events)]
        prints = [event.envelope.fingerprint() for event in events]  # in one go: their code stays in the caches
        for event, fingerprint in zip(events, prints, strict=True):
            args += self._arguments(event, fingerprint)
        return [self._read(row, event) for row, event in zip(self._store.run("publish", args), events, strict=True)]

    def _arguments(self, event: Admitted, fingerprint: str) -> list[Argument]:
        envelope, data, recipients = event.envelope, event.envelope.data, event.recipients
        expiries = [limit.timestamp() for limit in (data.expires(), envelope.expires_at) if limit is not None]
        supersedes = envelope.supersedes or data.supersede_key(recipients[0]) or ""
        if supersedes:
            supersedes = hashlib.sha256(f"{envelope.kind}\0{supersedes}".encode()).hexdigest()[:32]
        args: list[Argument] = [
            f"{envelope.tenant}:{envelope.idempotency_key or envelope.id}",
            fingerprint,
            envelope.id,
            envelope.tenant,
            envelope.kind,
            envelope.schema_version,
            event.account.name,
            "u" if data.is_urgent else "b",
            data.on_unknown,
            _micros(data.deadline.total_seconds()),
            _micros(min(expiries)) if expiries else 0,
            _micros(envelope.not_before.timestamp()) if envelope.not_before else 0,
            supersedes,
            len(event.allowances),
        ]
        for allowance in event.allowances:
            key = allowance.key
            if allowance.per_recipient:
                key = f"{key}:{recipient_key(self._sealer, recipients[0].address)}"
            args += (key, allowance.most, allowance.seconds)
        args.append(len(recipients))
        domain = event.account.sender.address.rpartition("@")[2]
        several = len(recipients) > 1
        body = envelope.body()
        for recipient in recipients:
            if several and "recipients" in type(data).model_fields:
                body = data.model_copy(update={"recipients": (recipient,)}).model_dump_json(exclude_none=True).encode()
            identity = new_event_id()
            args += (
                identity,
                mask_address(recipient.address),
                recipient_key(self._sealer, recipient.address),
                f"<{identity}@{domain}>",
                f"{envelope.id}/{recipient.locale or '-'}" if several and data.shares_mail else "",
                seal_payload(self._sealer, identity, Payload(body, recipient, envelope.reply_to)),
            )
        return args

    @staticmethod
    def _read(row: Sequence[Any], event: Admitted) -> Accepted | InvalidEvent | LedgerUnavailable:
        status = row[0]
        if status == b"spent":
            spent = event.allowances[row[2] - 1]
            code = "cooldown" if spent.per_recipient else "budget_spent"
            wait = max(1.0, float(row[3]))
            reason = f"{spent.reason}; try again in {wait:.0f} seconds"
            return InvalidEvent(reason, field=spent.field, code=code, retry_after=wait)
        if status == b"conflict":
            return IdempotencyConflict()
        if status == b"busy":
            return LedgerUnavailable("the ledger is busy: its memory is three quarters full", retry_after=5.0)
        return Accepted(row[1].decode(), tuple(item.decode() for item in row[2:]), status == b"duplicate")
