"""Whether a text names an address, in whatever way it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import idna

from postier.schemas.address import address_key

_LAYERS = 3  # a link in a link in a link
_ESCAPED = re.compile(r"\\[nrtbf]")


class Mentions:
    """Looks for one address (from `parse_address`) in texts: in any case, percent-encoded, its domain in either form.

    Only the whole address counts: `ann@example.org` is not in `joann@example.org` or `ann@example.org.uk`.
    """

    def __init__(self, address: str) -> None:
        local, _, domain = address_key(address).rpartition("@")
        readable = domain
        if "xn--" in domain:
            readable = idna.decode(domain)
        domains = "|".join(re.escape(name) for name in dict.fromkeys((domain, readable)))
        whole = rf"{re.escape(local)}@(?:{domains})"
        self._pattern = re.compile(rf"(?<![\w.+-]){whole}(?![\w-]|\.\w)")
        self._joined = re.compile(rf"(?<![^\W_]){whole}(?![^\W_]|\.\w)")
        self._domains = tuple(
            dict.fromkeys(
                form.encode()
                for form in (domain, readable, json.dumps(readable)[1:-1].lower(), quote(readable).lower())
            )
        )
        # In every way of writing it, these stand there as they are; where the domain has two forms, only one of them.
        core = max(re.findall(r"[a-z0-9]+", local), key=len, default="")
        self._core = core.encode()
        self.parts: tuple[str, ...] = (core, domain) if readable == domain else (core,)

    def in_text(self, text: str) -> bool:
        """Whether it stands in a text of one piece."""
        return _found(self._pattern, text.lower())

    def in_key(self, text: str) -> bool:
        """Whether it may be part of a made-up key: there, `-`, `_`, `.` and `+` join pieces as well."""
        return _found(self._joined, text.lower())

    def in_json(self, data: bytes) -> bool:
        """Whether it stands in any text of JSON or JSON Lines; in what is neither, anywhere."""
        lowered = data.lower()
        if self._core not in lowered:  # nobody writes plain letters any other way
            return False
        if data.isascii() and b"\\u" not in data and not any(form in lowered for form in self._domains):
            return False
        try:
            return self._in_value(json.loads(data))
        except (ValueError, RecursionError):  # no JSON, or nested beyond what anybody reads
            return any(self._in_line(line) for line in data.split(b"\n"))

    def _in_line(self, line: bytes) -> bool:
        try:
            return self._in_value(json.loads(line))
        except (ValueError, RecursionError):
            return self.in_text(_ESCAPED.sub(" ", line.decode("utf-8", "replace")))

    def _in_value(self, value: Any) -> bool:
        return any(self.in_text(text) for text in _texts(value))


def _found(pattern: re.Pattern[str], text: str) -> bool:
    for _ in range(_LAYERS):
        if pattern.search(text):
            return True
        if "%" not in text:
            return False
        text = unquote(text).lower()
    return bool(pattern.search(text))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
