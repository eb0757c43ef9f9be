"""How long ended deliveries are kept that wait for nobody. What waits for a person is kept until it is purged."""

from __future__ import annotations

from postier.ledger.store import Store, translated
from postier.schemas.account import Registry

_DAY = 86_400


def tell_retention(store: Store, registry: Registry) -> None:
    """Let the ledger know how long each tenant's ended deliveries are kept. Repeating is safe."""
    wanted = {name: str(tenant.keep_days * _DAY) for name, tenant in registry.tenants.items() if tenant.keep_days}
    with translated():
        key = store.key("keep")
        known = {name.decode(): value.decode() for name, value in store.redis.hgetall(key).items() if name}
        if known == wanted:
            return
        pipe = store.redis.pipeline(transaction=True)
        if known:
            pipe.hdel(key, *known)
        if wanted:
            pipe.hset(key, mapping=wanted)
        pipe.execute()
