"""What every kind of event is made of: the base class, the pieces kinds share, and the types of their fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from postier.schemas.address import Address, address_key, mask_address
from postier.schemas.text import OneLine, refusal

Locale = Literal["en", "fr"]
EXAMPLE_TIME = datetime(2099, 1, 5, 9, 30, tzinfo=UTC)

_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?\Z"
)


class _Moment:
    """A point in time: a datetime with a time zone, or its RFC 3339 text; kept in UTC."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_in_utc, core_schema.datetime_schema(strict=True))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time"}


def _in_utc(value: Any) -> Any:
    if isinstance(value, str):
        if not _ISO.match(value):
            raise refusal("time", "a time reads 2026-01-31T12:00:00Z")
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError:
            raise refusal("time", "this day or time does not exist") from None
    if not isinstance(value, datetime) or value.tzinfo is UTC:
        return value
    if value.tzinfo is None or value.utcoffset() is None:
        raise refusal("time_zone", "a time needs its time zone, like Z or +01:00")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise refusal("time", "this day or time does not exist") from None


Moment = Annotated[datetime, _Moment]


class Part(BaseModel):
    """A frozen, strict group of fields. Its values are people's: repr and errors never show them."""

    # Not a field, nor copied with them: a copy, and one made without checks, has none.
    __slots__ = ("_as_checked",)

    # Addresses and links come once: kept in a cache they would only fill the memory.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, cache_strings="keys")

    def model_post_init(self, context: Any, /) -> None:
        # Called when a validation has made this part; a validator would also see parts that others only hand in.
        object.__setattr__(self, "_as_checked", self.__dict__.copy())

    @classmethod
    def model_construct(  # type: ignore[override]  # the plugin writes one per class
        cls, _fields_set: set[str] | None = None, **values: Any
    ) -> Self:
        made = super().model_construct(_fields_set, **values)
        object.__setattr__(made, "_as_checked", None)
        return made

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from ()


def is_as_checked(part: Part) -> bool:
    """Whether `part` and all its parts passed their checks and hold the very values they held then.

    True only for what is ours and cannot change in place; checking anything else again is the caller's part.
    """
    noted: dict[str, Any] | None = getattr(part, "_as_checked", None)
    if noted is None or len(noted) != len(part.__dict__) or part.__pydantic_extra__ or not _is_ours(type(part)):
        return False
    held = part.__dict__.get
    for name, value in noted.items():
        if held(name, _NOTHING) is not value:
            return False
        if type(value) not in _CONSTANT and not _are_as_checked(value if type(value) is tuple else (value,)):
            return False
    return True


def _are_as_checked(values: tuple[Any, ...]) -> bool:
    for value in values:
        if type(value) not in _CONSTANT and not (isinstance(value, Part) and is_as_checked(value)):
            return False
    return True


@cache
def _is_ours(shape: type[Part]) -> bool:
    # Parts made elsewhere may serialise in ways of their own.
    return shape.__module__.startswith(f"{__package__}.")


_CONSTANT = frozenset((str, bool, int, datetime, NoneType))
_NOTHING = object()


class Recipient(Part):
    """Who gets the mail; a plain string stands for the address alone. Without a locale the account's is used."""

    address: Address
    name: Annotated[str, OneLine(128)] = ""
    locale: Locale | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_the_address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "address", mask_address(self.address)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(schema))
        alone = {"type": "string", "format": "idn-email", "minLength": 3, "maxLength": 254}
        whole = dict(described)
        described.clear()
        described.update({"anyOf": [whole, alone]})
        return described


# A strict model takes only instances and tuples from Python; these take mappings and lists too, as they come from JSON.
OneRecipient = Annotated[Recipient, Strict(False)]


class Event(Part):
    """What a producer publishes. A kind is a subclass in a module of its own, plus its templates.

    The class says how its mail is handled: `priority` orders it inside an account; after `deadline` it is of no use to
    anyone; `on_unknown` says what to do when nobody can know whether it left; `sensitive` mail is never shared between
    recipients. `schema_version` rises when a field is added; fields are added with defaults and never renamed.
    Making one with values the edge would refuse raises pydantic's ValidationError (a ValueError) without the values.
    """

    kind: ClassVar[str]
    schema_version: ClassVar[int] = 1
    priority: ClassVar[Literal["urgent", "bulk"]] = "bulk"
    deadline: ClassVar[timedelta] = timedelta(hours=48)
    on_unknown: ClassVar[Literal["resend", "hold"]] = "hold"
    sensitive: ClassVar[bool] = False
    cooldown: ClassVar[timedelta | None] = None  # least time between two of its kind to the same recipient
    sample: ClassVar[str] = ""  # one line for people: when this kind is sent

    @classmethod
    def example(cls, at: datetime = EXAMPLE_TIME) -> Self:
        """A complete, valid event that happened at `at`; the same for the same `at`."""
        raise NotImplementedError

    def to(self) -> tuple[Recipient, ...]:
        """Whom the producer chose, each once; empty for kinds whose recipients are configured."""
        return ()

    def form(self) -> str | None:
        """The contact form whose configured recipients get the mail, for kinds that have one."""
        return None

    def links(self) -> Iterator[tuple[str, str]]:
        """Each link with its dotted field; the edge checks their hosts."""
        yield from ()

    def expires(self) -> datetime | None:
        """When the content itself stops being of use, for kinds that say so."""
        return None

    def supersede_key(self, recipient: Recipient) -> str | None:
        """Of several waiting deliveries with the same key only the newest leaves; None supersedes nothing."""
        return None

    def cooldown_key(self) -> str:
        """Tells events apart that have cooldowns of their own, beside kind and recipient."""
        return ""

    @property
    def shares_mail(self) -> bool:
        """Whether its recipients may get one mail together, unseen by each other."""
        return False

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before the bulk mail of its account."""
        return self.priority == "urgent"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "kind", self.kind


def each_once(recipients: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
    """The recipients without repetition of an address; the first one's name and locale stay."""
    seen: dict[str, Recipient] = {}
    for recipient in recipients:
        seen.setdefault(address_key(recipient.address), recipient)
    return tuple(seen.values()) if len(seen) < len(recipients) else recipients


def recipient_key(kind: str, recipient: Recipient) -> str:
    """A key for one kind and one address that does not show the address."""
    digest = hashlib.sha256(address_key(recipient.address).encode()).hexdigest()
    return f"{kind}:{digest[:32]}"
