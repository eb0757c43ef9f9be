"""The client: the hard edge, then one round trip to the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from postier.ledger.accounts import RegistryReader
from postier.ledger.publish import Accepted, Admitted, Publisher, admit_and_route
from postier.ledger.queries import Queries, Status
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.schemas.edge import wrap
from postier.schemas.envelope import Envelope
from postier.schemas.errors import InvalidEvent, LedgerUnavailable
from postier.schemas.events import Event
from postier.settings.config import Settings, load_settings

Answer = Accepted | InvalidEvent | LedgerUnavailable


class Postier:
    """A connection to one ledger. Thread-safe; make one per process and keep it.

    `redis_url` and `seal_keys` default to `POSTIER_REDIS_URL` and `POSTIER_SEAL_KEYS`; the keys must be the workers'.
    Raises ConfigurationError when a setting is missing or wrong.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        seal_keys: str | None = None,
        registry: Registry | None = None,
        settings: Settings | None = None,
    ) -> None:
        keys = SecretStr(seal_keys) if seal_keys is not None else None
        self.settings = settings or load_settings(redis_url=redis_url, seal_keys=keys)
        self._store = Store(
            self.settings.redis_url, namespace=self.settings.namespace, timeout=self.settings.redis_timeout
        )
        self._publisher = Publisher(self._store, self.settings.sealer(), keep_keys=self.settings.keep_keys_seconds)
        self._registry = registry
        self._reader = RegistryReader(self._store)

    def publish(
        self,
        event: Event,
        *,
        tenant: str,
        account: str | None = None,
        idempotency_key: str | None = None,
        event_id: str | None = None,
        occurred_at: datetime | None = None,
        source: str = "",
        reply_to: str | None = None,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        supersedes: str | None = None,
        trace: str | None = None,
    ) -> Accepted:
        """Accept one event. When this returns, the event is in the ledger.

        The same `idempotency_key` (default: the event's id) with the same content answers as the first time, with
        `duplicate` set. Raises InvalidEvent (IdempotencyConflict when the key stands for other content) and nothing is
        queued; raises LedgerUnavailable when Redis is away, full or silent: repeat with the same idempotency key.
        """
        envelope = wrap(
            event, tenant=tenant, account=account, idempotency_key=idempotency_key, event_id=event_id,
            occurred_at=occurred_at, source=source, reply_to=reply_to, not_before=not_before, expires_at=expires_at,
            supersedes=supersedes, trace=trace,
        )  # fmt: skip
        answer = self.publish_envelopes([envelope])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def publish_many(self, events: Iterable[Event], *, tenant: str, account: str | None = None) -> list[Answer]:
        """Accept events in one round trip. Answers in their order: Accepted, or the error that refused this one."""
        envelopes: list[Envelope | InvalidEvent] = []
        for event in events:
            try:
                envelopes.append(wrap(event, tenant=tenant, account=account))
            except InvalidEvent as error:
                envelopes.append(error)
        return self.publish_envelopes(envelopes)

    def publish_envelopes(self, envelopes: Sequence[Envelope | InvalidEvent]) -> list[Answer]:
        """As `publish_many`, for envelopes; what is already refused is passed through."""
        answers: list[Answer | None] = []
        admitted: list[Admitted] = []
        for envelope in envelopes:
            try:
                admitted.append(self._admit(envelope))
                answers.append(None)
            except InvalidEvent as error:
                answers.append(error)
        accepted = iter(self._publisher.publish(admitted) if admitted else ())
        return [next(accepted) if answer is None else answer for answer in answers]

    def status(self, delivery_id: str) -> Status | None:
        """What became of a delivery; None when the ledger does not know it (any more)."""
        return Queries(self._store).status(delivery_id)

    def _admit(self, envelope: Envelope | InvalidEvent) -> Admitted:
        if isinstance(envelope, InvalidEvent):
            raise envelope
        registry = self._registry or self._reader.current()
        if self._registry is None and envelope.tenant not in registry.tenants:
            registry = self._reader.current(again=True)
        return admit_and_route(envelope, registry)

    def close(self) -> None:
        """Close the connections. Calling twice is safe."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
