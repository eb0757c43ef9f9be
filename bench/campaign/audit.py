"""What must hold in any ledger at any moment, whatever happened: each delivery has exactly one place."""

from __future__ import annotations

from postier.ledger.queries import ENDS
from postier.ledger.store import Store


def inconsistencies(store: Store) -> list[str]:
    """Sentences about deliveries that stand in no index of their state, or in another's, or lost their payload."""
    keys, found = store.redis, []
    lanes: dict[str, list[str]] = {}
    for account in keys.smembers(store.key("accounts")):
        for priority in "ub":
            for identity in keys.lrange(store.key(f"lane:{account.decode()}:{priority}"), 0, -1):
                lanes.setdefault(identity.decode(), []).append(account.decode())
    scheduled = {one.decode() for one in keys.zrange(store.key("scheduled"), 0, -1)}
    leased = {one.decode() for one in keys.zrange(store.key("lease"), 0, -1)}
    ended = {state: {one.decode() for one in keys.zrange(store.key(f"ended:{state}"), 0, -1)} for state in ENDS}
    prefix = store.key("delivery:")
    for name in keys.scan_iter(prefix + "*", count=1000):
        identity = name.decode().removeprefix(prefix)
        state, account = (value.decode() if value else "" for value in keys.hmget(name, "state", "account"))
        places = [state for state, members in ended.items() if identity in members]
        if state in ENDS:
            if places != [state]:
                found.append(f"{identity} is {state} but stands in {places}")
        elif places:
            found.append(f"{identity} is {state} but stands in {places}")
        elif state == "waiting" and account not in lanes.get(identity, ()) and identity not in scheduled:
            found.append(f"{identity} waits in no lane")
        elif state in ("leased", "sending") and identity not in leased:
            found.append(f"{identity} is {state} without a lease")
        if state not in ("sent", "discarded") and not keys.exists(store.key(f"payload:{identity}")):
            found.append(f"{identity} is {state} without its payload")
    return found
