"""Senders that belong to a brand: asked for, confirmed by their owner through a link, cancelled or changed.

The link carries 256 random bits; what is kept is their hash, bound to the purpose, the tenant and the address, so that
neither the ledger nor another sender's link opens anything. It works once, by compare-and-set, until it runs out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from postier.ledger.book import Book, Change, Page
from postier.ledger.store import Store
from postier.schemas.address import Address, address_key, mask_address
from postier.schemas.errors import ConfigurationError

LIFE = 48 * 3600.0  # seconds a link works
COOLDOWN = 60.0  # seconds between two mails to the same address
MAILS_A_DAY = 10

_PURPOSE = "sender_confirmation"
_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)
_TOKEN = re.compile(r"([0-9a-f]{32})\.([A-Za-z0-9_-]{43})\Z")
_NOBODY = Page(
    0,
    {
        "s:": '{"data": {"tenant": "nobody", "address": "nobody@nowhere.example", "state": "cancelled", "name": "", '
        '"account": "brand", "mailed_at": 1764400000.123456, "since": 1764400000.123456, "mails": 1, '
        '"expires_at": 1764572800.123456}, "version": 1, "at": 1764400000123456, "who": "nobody"}'
    },
)


@dataclass(frozen=True, slots=True)
class BrandSender:
    """One sender of a tenant. `state` is pending, confirmed or cancelled; times are seconds since 1970.

    `account` is the branded account whose sender becomes this one once it is confirmed; `replaces` the sender that it
    then takes the place of.
    """

    id: str
    tenant: str
    address: str
    name: str
    state: str
    account: str = ""
    replaces: str = ""
    mailed_at: float = 0.0
    mails: int = 0
    expires_at: float = 0.0
    confirmed_at: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The sender as one JSON-ready object."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) not in ("", 0.0)}


@dataclass(frozen=True, slots=True)
class Asked:
    """A sender whose owner is now to be asked, and the token that the mail's link carries. Shown to nobody else."""

    sender: BrandSender
    token: str


class Senders:
    """The senders of one ledger, changed in the name of `who`. All raise LedgerUnavailable.

    Changes raise ConfigurationError with a reason for people, and then nothing is written.
    """

    def __init__(self, store: Store, *, who: str) -> None:
        self._store = store
        self._book = Book(store)
        self._who = who[:80]

    def list(self, tenant: str | None = None) -> list[BrandSender]:
        """Every sender, or a tenant's."""
        page = self._book.read()
        found = [sender for name in page.names("s:") if (sender := _read(page, name)) is not None]
        return sorted((one for one in found if tenant in (None, one.tenant)), key=lambda one: (one.tenant, one.address))

    def add(
        self, address: str, *, tenant: str, name: str = "", account: str = "", replaces: str = "", life: float = LIFE
    ) -> Asked:
        """Begin a confirmation. Adding one that is pending is `resend`; a confirmed one is refused."""
        try:
            address = _ADDRESS.validate_python(address)
        except ValidationError:
            raise ConfigurationError("sender: an address reads name@domain.example") from None
        identity = _identity(tenant, address)

        def fresh(before: Mapping[str, Any]) -> dict[str, Any]:
            if before.get("state") == "confirmed":
                raise ConfigurationError(f"sender {mask_address(address)} of tenant {tenant!r} is confirmed already")
            kept = {key: before[key] for key in ("name", "account", "replaces") if before.get(key)}
            given = {"name": name, "account": account, "replaces": replaces}
            return {**kept, **{key: value for key, value in given.items() if value}}

        return self._ask(identity, tenant, address, fresh, "sender.added", life)

    def resend(self, address: str, *, tenant: str, life: float = LIFE) -> Asked:
        """Mail a new link; the older one stops working. Refused within a minute, and after ten mails a day."""
        identity = _identity(tenant, address)

        def pending(before: Mapping[str, Any]) -> dict[str, Any]:
            if before.get("state") != "pending":
                state = before.get("state", "unknown here")
                raise ConfigurationError(f"sender {mask_address(address)} of tenant {tenant!r} is {state}")
            return {key: before[key] for key in ("name", "account", "replaces") if before.get(key)}

        return self._ask(identity, tenant, address, pending, "sender.asked_again", life)

    def cancel(self, address: str, *, tenant: str) -> BrandSender:
        """Stop using a sender, confirmed or not; its link stops working. Mail leaves from the default sender then."""
        identity = _identity(tenant, address)
        page = self._book.change(self._who, lambda page: self._cancelled(page, identity, address))
        return _there(page, identity)

    def look(self, token: str) -> BrandSender | None:
        """The sender a link is about, without using it up; None for every link that does not work (any more)."""
        return self._opened(self._book.read(), token)

    def confirm(self, token: str) -> BrandSender | None:
        """Use a link: the sender is confirmed and its account sends as it. None for a link that does not work.

        Of many at once exactly one succeeds.
        """
        found: BrandSender | None = None

        def work(page: Page) -> Change | None:
            nonlocal found
            found = self._opened(page, token)
            if found is None:
                return None
            data = {**_data(page, f"s:{found.id}"), "state": "confirmed", "confirmed_at": self._store.now() / 1e6}
            data.pop("hash", None)
            put: dict[str, dict[str, Any] | None] = {f"s:{found.id}": data, **_taken_over(page, found)}
            return Change(put, "sender.confirmed", mask_address(found.address), {"tenant": found.tenant})

        page = self._book.change(self._who, work)
        return _there(page, found.id) if found is not None else None

    def _ask(self, identity: str, tenant: str, address: str, fresh: Any, what: str, life: float) -> Asked:
        secret = secrets.token_urlsafe(32)

        def work(page: Page) -> Change:
            before = _data(page, f"s:{identity}")
            kept = fresh(before)
            now = self._store.now() / 1e6
            data = {
                "tenant": tenant, "address": address, "state": "pending", **kept, **_counted(before, now),
                "mailed_at": now, "expires_at": now + life, "hash": _digest(tenant, address, secret),
            }  # fmt: skip
            return Change({f"s:{identity}": data}, what, mask_address(address), {"tenant": tenant})

        page = self._book.change(self._who, work)
        return Asked(_there(page, identity), f"{identity}.{secret}")

    def _cancelled(self, page: Page, identity: str, address: str) -> Change:
        before = _data(page, f"s:{identity}")
        if before.get("state") not in ("pending", "confirmed"):
            raise ConfigurationError(f"there is no sender {mask_address(address)} of this tenant to cancel")
        data = {**before, "state": "cancelled"}
        data.pop("hash", None)
        return Change({f"s:{identity}": data}, "sender.cancelled", mask_address(address), {"tenant": before["tenant"]})

    def _opened(self, page: Page, token: str) -> BrandSender | None:
        parts = _TOKEN.match(token)
        if parts is None:
            return None
        # The same steps for every link: their time must not say whose confirmation is waited for.
        data = _data(page, f"s:{parts[1]}") or _data(_NOBODY, "s:")
        given = _digest(str(data.get("tenant")), str(data.get("address")), parts[2])
        right = hmac.compare_digest(given, str(data.get("hash", "-" * 64)))
        in_time = float(data.get("expires_at", 0)) > self._store.now() / 1e6
        return _read(page, parts[1]) if right and in_time and data.get("state") == "pending" else None


def _identity(tenant: str, address: str) -> str:
    return hashlib.sha256(f"{tenant}\0{address_key(address)}".encode()).hexdigest()[:32]


def _digest(tenant: str, address: str, secret: str) -> str:
    return hashlib.sha256("\0".join((_PURPOSE, tenant, address_key(address), secret)).encode()).hexdigest()


def _counted(before: Mapping[str, Any], now: float) -> dict[str, Any]:
    """How many mails went to the address since its day began. Raises ConfigurationError when none may go now."""
    since = now - float(before.get("mailed_at", 0))
    if since < COOLDOWN:
        raise ConfigurationError(f"this address was just asked: wait {COOLDOWN - since:.0f} seconds")
    began, mails = float(before.get("day", 0)), int(before.get("mails", 0))
    if now - began >= 86_400:
        began, mails = now, 0
    if mails >= MAILS_A_DAY:
        raise ConfigurationError(f"this address was asked {mails} times within a day: wait until tomorrow")
    return {"day": began, "mails": mails + 1}


def _taken_over(page: Page, sender: BrandSender) -> dict[str, dict[str, Any] | None]:
    """The stored branded accounts that send as this sender from now on, and the end of the one it replaces."""
    put: dict[str, dict[str, Any] | None] = {}
    old = _identity(sender.tenant, sender.replaces) if sender.replaces else ""
    if old and f"s:{old}" in page.raw:
        data = {**_data(page, f"s:{old}"), "state": "cancelled"}
        data.pop("hash", None)
        put[f"s:{old}"] = data
    for name in page.names("a:"):
        row = _data(page, f"a:{name}")
        if row.get("driver") != "branded" or row.get("tenant") != sender.tenant:
            continue
        sends_as = address_key(str(row.get("sender", {}).get("address", "")))
        if name == sender.account or (sender.replaces and sends_as == address_key(sender.replaces)):
            shown = {"name": sender.name} if sender.name else {}
            put[f"a:{name}"] = {**row, "sender": {**row.get("sender", {}), "address": sender.address, **shown}}
    return put


def _data(page: Page, entry: str) -> dict[str, Any]:
    try:
        found = page.entry(entry)
    except ValueError:
        return {}
    return found.data if found else {}


def _read(page: Page, identity: str) -> BrandSender | None:
    data = _data(page, f"s:{identity}")
    if not {"tenant", "address", "state"} <= data.keys():
        return None
    known = {name: data[name] for name in BrandSender.__slots__ if name in data}
    return BrandSender(**{"id": identity, "name": "", **known})


def _there(page: Page, identity: str) -> BrandSender:
    found = _read(page, identity)
    assert found is not None
    return found
