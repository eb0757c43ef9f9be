"""JSON read without latitude: one object, UTF-8, no repeated names, no NaN, no giant numbers, no deep nesting, no bulk."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from postier.schemas.errors import InvalidEvent

MAX_EVENT = 262_144  # bytes
MAX_DEPTH = 32
_MAX_DIGITS = 19


def read_object(raw: bytes | str) -> dict[str, Any]:
    """The object that `raw` describes. Raises InvalidEvent; its texts never repeat anything of `raw`."""
    if len(raw) > MAX_EVENT:
        raise InvalidEvent(f"an event has at most {MAX_EVENT} bytes", code="too_large")
    text = _text(raw)
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidEvent(f"this is no JSON text ({where})", code="undecodable") from None
    if not isinstance(value, dict):
        raise InvalidEvent("an event is one JSON object", code="wrong_type")
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _refuse_deep(value)
    return value


def _text(raw: bytes | str) -> str:
    try:
        if isinstance(raw, bytes):
            return raw.decode("utf-8")
        if not raw.isascii() and len(raw.encode("utf-8")) > MAX_EVENT:
            raise InvalidEvent(f"an event has at most {MAX_EVENT} bytes", code="too_large")
        return raw
    except UnicodeError:
        raise InvalidEvent("an event is written in UTF-8", code="undecodable") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                from postier.schemas.refusals import shown

                raise InvalidEvent("this name occurs twice in one object", field=shown(name), code="said_twice")
            seen.add(name)
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise InvalidEvent("a number is too large", code="number")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits) if len(digits) <= 64 else math.inf
    if not math.isfinite(value):
        raise InvalidEvent("a number is too large", code="number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise InvalidEvent("NaN and Infinity are no JSON", code="number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_no_constant
)


def _refuse_deep(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            inner.extend(child for child in children if isinstance(child, (dict, list)))
        if not inner:
            return
        level = inner
    raise _too_deep()


def _too_deep() -> InvalidEvent:
    return InvalidEvent(f"objects and lists are nested deeper than {MAX_DEPTH}", code="too_deep")
