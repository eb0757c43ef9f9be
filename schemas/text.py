"""Text that is safe to print, to log and to put into a header: what people may write, and nothing that acts.

Refused, never cleaned: a cleaned text is another text, and two programs clean differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, LiteralString

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_C0_BUT_TAB_AND_LF = r"\x00-\x08\x0b-\x1f"
# The last two code points of every plane and U+FDD0..FDEF are for internal use only (Unicode 16, section 23.7).
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
_ALWAYS = rf"{_C0_BUT_TAB_AND_LF}\x7f-\x9f\u2028\u2029\ud800-\udfff{_NONCHARACTERS}"

CONTROLS = re.compile(rf"[\t\n{_ALWAYS}]")
# Overrides make text read as what it is not; embeddings and isolates may leak into the words after a single line.
_IN_A_LINE = re.compile(rf"[\t\n{_ALWAYS}\u202a-\u202e\u2066-\u2069]")
# In a body they end with their paragraph, and phones paste embeddings around every telephone number.
_IN_A_BODY = re.compile(rf"[{_ALWAYS}\u202d\u202e]")


def refusal(code: LiteralString, reason: LiteralString) -> PydanticCustomError:
    """A ValueError that carries a stable code through pydantic; the reason must not repeat the value."""
    return PydanticCustomError(code, reason)


def control_character() -> PydanticCustomError:
    """The refusal of a text that holds something other than readable characters."""
    return refusal("control_character", "control characters, line separators and direction overrides are refused")


def check_line(value: str) -> str:
    """`value` unchanged when it is one line of readable text; ValueError `control_character` otherwise."""
    if value.isascii() and value.isprintable():
        return value
    if _IN_A_LINE.search(value):
        raise control_character()
    return value


def check_body(value: str) -> str:
    """`value` with CRLF as LF when it is readable text; ValueError `control_character` otherwise.

    Tabs and line feeds are kept; a carriage return alone is refused (RFC 5322 section 2.2, SMTP smuggling).
    """
    if "\r\n" in value:
        value = value.replace("\r\n", "\n")
    if _IN_A_BODY.search(value):
        raise control_character()
    return value


@dataclass(frozen=True, slots=True)
class OneLine:
    """Marks a string as one line of at most `max_length` characters; `blank` says that it may be empty or spaces."""

    max_length: int = 998
    blank: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _text_schema(check_line if self.blank else _check_written_line, self.max_length, self.blank)


@dataclass(frozen=True, slots=True)
class ManyLines:
    """Marks a string as text of any number of lines and at most `max_length` characters."""

    max_length: int = 200_000
    blank: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _text_schema(check_body if self.blank else _check_written_body, self.max_length, self.blank)


def _text_schema(check: Any, max_length: int, blank: bool) -> CoreSchema:
    text = core_schema.str_schema(strict=True, min_length=None if blank else 1, max_length=max_length)
    return core_schema.no_info_after_validator_function(check, text)


def _check_written_line(value: str) -> str:
    return _check_written(check_line(value))


def _check_written_body(value: str) -> str:
    return _check_written(check_body(value))


def _check_written(value: str) -> str:
    if value.isspace():
        raise refusal("blank", "this text is needed")
    return value


Line = Annotated[str, OneLine()]
Body = Annotated[str, ManyLines()]
