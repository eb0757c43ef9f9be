"""The one link parser: https, a host the tenant allows, and nothing that a browser would read in another way.

A link is refused when the WHATWG URL standard would change more of it than letter case and percent-encoding, so that
the host checked here is the host the reader's browser visits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

import idna
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from postier.schemas.text import CONTROLS, control_character, refusal

MAX_LINK = 2048  # characters
MAX_HOST = 253

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}\Z")
# Not re.IGNORECASE: it takes the long s (U+017F) for an s.
_LINK = re.compile(r"[Hh][Tt][Tt][Pp][Ss]://([^/?#:@]+)(?::443)?(/[^?#]*)?(\?[^#]*)?(#.*)?\Z")
_NEVER = re.compile(r'[\s"<>\\^`{}]')
_ENCODED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f|5c)", re.IGNORECASE)
# Wider than WHATWG: some servers decode slashes, decode twice, or drop what follows a semicolon, and then resolve dots.
_DOT_SEGMENT = re.compile(r"(?:/|%(?:25)*2f)(?:\.|%(?:25)*2e){1,2}(?:/|;|%(?:25)*2f|\Z)", re.IGNORECASE)
# Nearly every link: nothing encoded in its path, no dot at the start of a piece of it.
_PLAIN = re.compile(
    rf"https://((?:(?!..--){_LABEL}\.)+(?=[a-z])(?!..--){_LABEL})"
    r"((?:/(?!\.)[A-Za-z0-9._~!$&()*+,;=:@-]*)*)(?:\?[A-Za-z0-9._~!$&()*+,;=:@/?%|\[\]-]*)?(?:#[A-Za-z0-9._~!$&()*+,;=:@/?%-]*)?\Z"
)


def parse_link(url: str) -> tuple[str, str]:
    """The lower-case host and the path of an acceptable https link; ValueError `link_not_allowed` otherwise."""
    if len(url) > MAX_LINK:
        raise _refused("a link has at most 2048 characters")
    plain = _PLAIN.match(url)
    if plain and len(plain[1]) <= MAX_HOST:
        return plain[1], plain[2] or "/"
    return _parse_the_long_way(url)


def _parse_the_long_way(url: str) -> tuple[str, str]:
    if CONTROLS.search(url):
        raise control_character()
    if _NEVER.search(url) or not url.isprintable():
        raise _refused("a link has no spaces, backslashes, quotes or invisible characters")
    parts = _LINK.match(url)
    if parts is None:
        raise _refused("a link reads https://host/path, without user name and on port 443")
    if not parts[1].isascii():  # before lower case makes a plain k of the Kelvin sign
        raise _refused("a link writes an international host as xn--")
    host, path = parts[1].lower(), parts[2] or "/"
    _check_host(host)
    if _DOT_SEGMENT.search(path) or _ENCODED_CONTROL.search(path):
        raise _refused("a link's path has no dot segments and no encoded control characters")
    return host, path


def _check_host(host: str) -> None:
    if len(host) > MAX_HOST or not _HOST.match(host):
        raise _refused("a link names a full host, not a number or a single word")
    for label in host.split("."):
        if label[2:4] == "--":
            try:
                idna.ulabel(label)
            except (idna.IDNAError, UnicodeError):
                raise _refused("a link's international host is not validly encoded") from None


def check_link(url: str, allowed_hosts: Iterable[str]) -> str:
    """`url` unchanged when it is acceptable and on an allowed host; ValueError `link_not_allowed` otherwise.

    An entry is `host`, `*.host` (its subdomains, not itself), and either with `/path`: then that path and what is
    below it.
    """
    host, path = parse_link(url)
    if any(_allows(entry, host, path) for entry in allowed_hosts):
        return url
    raise _refused("this host is not among those the tenant allows")


def _allows(entry: str, host: str, path: str) -> bool:
    name, slash, prefix = entry.partition("/")
    matches = host.endswith(name[1:]) and len(host) >= len(name) if name.startswith("*.") else host == name
    if not matches or not slash or not prefix:
        return matches
    prefix = "/" + prefix.rstrip("/")
    return path == prefix or path.startswith(prefix + "/")


def check_host_entry(entry: str) -> str:
    """An entry of a tenant's allowed hosts, unchanged; ValueError with a reason when no link could match it."""
    name, slash, path = entry.partition("/")
    host = name.removeprefix("*.")
    try:
        if host != host.lower() or parse_link(f"https://{host}{slash}{path}") != (host, slash + path or "/"):
            raise _refused("an allowed host is a lower-case host name")
    except PydanticCustomError:
        raise ValueError("an allowed host reads host.example, *.host.example or host.example/path") from None
    return entry


def _refused(reason: Any) -> PydanticCustomError:
    return refusal("link_not_allowed", reason)


def _parsed(url: str) -> str:
    parse_link(url)
    return url


class _Link:
    """Makes a string an acceptable https link; whether its host is allowed is the tenant's matter."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1, max_length=MAX_LINK)
        return core_schema.no_info_after_validator_function(_parsed, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "iri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]://", "maxLength": MAX_LINK}


Link = Annotated[str, _Link]
