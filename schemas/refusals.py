"""What pydantic found wrong, said in plain words: the first error's field, its code, and a reason without the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from postier.schemas.errors import InvalidEvent

MAX_EVENT = 262_144  # bytes

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")

Context = dict[str, Any]
_OBJECT: tuple[str, str] = ("wrong_type", "an object is needed")
_NEEDED = ("missing", "this field is needed")
_WORDS: dict[str, tuple[str, str | Callable[[Context], str]]] = {
    "missing": _NEEDED,
    "extra_forbidden": ("unknown_field", "there is no such field"),
    "string_type": ("wrong_type", "a text is needed"),
    "string_unicode": ("control_character", "half of a character (a lone surrogate) is refused"),
    "string_too_long": ("too_long", lambda context: f"at most {context['max_length']} characters are allowed"),
    "string_too_short": ("blank", "this text is needed"),
    "string_pattern_mismatch": ("wrong_form", "this has characters or a length that are not allowed here"),
    "literal_error": ("not_a_choice", lambda context: f"this must be {context['expected']}"),
    "int_type": ("wrong_type", "a whole number is needed"),
    "int_from_float": ("wrong_type", "a whole number is needed"),
    "bool_type": ("wrong_type", "true or false is needed"),
    "datetime_type": ("wrong_type", "a time like 2026-01-31T12:00:00Z is needed"),
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "is_instance_of": _OBJECT,
    "tuple_type": ("wrong_type", "a list is needed"),
    "greater_than_equal": ("out_of_range", lambda context: f"this must be at least {context['ge']}"),
    "less_than_equal": ("out_of_range", lambda context: f"this must be at most {context['le']}"),
    "too_short": ("too_few", lambda context: f"at least {context['min_length']} needed"),
    "too_long": ("too_many", lambda context: f"at most {context['max_length']} are allowed"),
    "json_invalid": ("undecodable", "this is no JSON text"),
}


def too_large() -> InvalidEvent:
    """The refusal of an event above the limit."""
    return InvalidEvent(f"an event has at most {MAX_EVENT} bytes", code="too_large")


def explain(error: ValidationError, prefix: str = "") -> InvalidEvent:
    """The refusal for the first thing pydantic found; `prefix` is the dotted field everything lies below."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = [prefix] if prefix else []
    path.extend(shown(part) for part in first["loc"])
    code, reason = _in_plain_words(first["type"], first["msg"], first.get("ctx", {}))
    return InvalidEvent(reason, field=".".join(path), code=code)


def _in_plain_words(code: str, message: str, context: Context) -> tuple[str, str]:
    if code in _OURS:
        return code, message if code != "missing" or "needed" in message else "this field is needed"
    ours, words = _WORDS.get(code, ("invalid", "this value is not allowed here"))
    return ours, words(context) if callable(words) else words


_OURS = {
    "address_invalid",
    "blank",
    "control_character",
    "ip_invalid",
    "link_not_allowed",
    "missing",
    "time",
    "time_zone",
    "times",
    "wrong_form",
    "wrong_kind",
}


def shown(name: str | int) -> str:
    """A field's name fit for a log line: names are the producer's text too."""
    text = str(name)
    if _PLAIN_NAME.match(text):
        return text
    return ascii(text[:32])[1:-1]
