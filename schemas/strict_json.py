"""JSON read without latitude: one object, UTF-8, no repeated names, no NaN, no giant numbers, no deep nesting."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from postier.schemas.errors import InvalidEvent
from postier.schemas.refusals import MAX_EVENT, shown, too_large

__all__ = ["MAX_DEPTH", "MAX_EVENT", "read_object"]

MAX_DEPTH = 32
_MAX_DIGITS = 19


def read_object(raw: bytes | str) -> dict[str, Any]:
    """The object that `raw` describes. Raises InvalidEvent; its texts never repeat anything of `raw`."""
    value = _decoded(_text(raw))
    if isinstance(value, InvalidEvent):
        raise value
    if not isinstance(value, dict):
        raise InvalidEvent("an event is one JSON object", code="wrong_type")
    return value


def _text(raw: bytes | str) -> str:
    # Nothing is raised inside an except block here: the first error would hold the whole text.
    if len(raw) > MAX_EVENT:
        raise too_large()
    text: str | None
    try:
        text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8")
        size = len(raw) if text.isascii() else len(text.encode("utf-8"))
    except UnicodeError:
        text, size = None, 0
    if text is None:
        raise InvalidEvent("an event is written in UTF-8", code="undecodable")
    if size > MAX_EVENT:
        raise too_large()
    return text


def _decoded(text: str) -> Any:
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        return _too_deep()
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return InvalidEvent(f"this is no JSON text ({where})", code="undecodable")
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_deep(value):
        return _too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
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


def _no_constant(_: str) -> NoReturn:
    raise InvalidEvent("NaN and Infinity are no JSON", code="number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_no_constant
)


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            inner.extend(child for child in children if isinstance(child, (dict, list)))
        if not inner:
            return False
        level = inner
    return True


def _too_deep() -> InvalidEvent:
    return InvalidEvent(f"objects and lists are nested deeper than {MAX_DEPTH}", code="too_deep")
