"""The one mail address parser: dot-atom before the @, a full domain name after it, and no other reading.

Everything RFC 5322 allows beyond that (comments, quotes, routes, literals) is refused, because programs read it
differently (CVE-2023-27043); so are `%` and `!`, which old relays read as routes, and encoded words. Domains become
lower-case A-labels (IDNA 2008).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

import idna
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from postier.schemas.text import CONTROLS, control_character, refusal

MAX_LOCAL, MAX_ADDRESS = 64, 254  # octets, RFC 5321 section 4.5.3.1 and its erratum 1690

_ATOM = r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Hyphens in a label's third and fourth place mean an encoded label: those take the long way.
_PLAIN = re.compile(
    rf"({_ATOM}(?:\.{_ATOM})*)@((?:(?!..--){_LABEL}\.)+(?!..--)[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9]))\Z"
)
_LOCAL = re.compile(r"[^.@%!]+(?:\.[^.@%!]+)*\Z")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
    "\u2800\ufffc\U00016fe4\U0001d159]"  # no format characters by their class, and nothing to see all the same
)


def parse_address(text: str) -> str:
    """The address in its one normal form: local part as written, domain as lower-case A-labels.

    Raises ValueError with a reason for people that never repeats the address. A local part beyond ASCII is taken
    (RFC 6531) when it is in NFC, has no compatibility look-alikes and nothing invisible. Calling it on its own
    answer gives the same answer.
    """
    if len(text) <= MAX_ADDRESS:
        plain = _PLAIN.match(text)
        if plain and len(plain[1]) <= MAX_LOCAL and "=?" not in text:
            domain = plain[2].lower()
            return f"{plain[1]}@{domain}"
    return _parse_the_long_way(text)


def _parse_the_long_way(text: str) -> str:
    if len(text) > MAX_ADDRESS:
        raise _refused("an address has at most 254 octets")
    if CONTROLS.search(text):
        raise control_character()
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise _refused("an address reads name@domain.example")
    if "@" in local:
        raise _refused("an address has one @")
    if "%" in local or "!" in local:
        raise _refused("routes through other hosts (% and !) are refused")
    if "=?" in local:
        # Some programs decode RFC 2047 words before they split the address.
        raise _refused("the part before the @ looks like an encoded word")
    if not _LOCAL.match(local):
        raise _refused("the part before the @ has an empty piece between its dots")
    if len(local.encode()) > MAX_LOCAL:
        raise _refused("the part before the @ has at most 64 octets")
    _refuse_look_alikes(local)
    encoded = _domain(domain)
    normal = f"{local}@{encoded}"
    if len(normal.encode()) > MAX_ADDRESS or len(f"{local}@{idna.decode(encoded)}".encode()) > MAX_ADDRESS:
        raise _refused("an address has at most 254 octets")
    from email_validator import EmailNotValidError, validate_email  # hardly any address comes here

    try:
        # The domain has passed IDNA's own rules; this library's refuse the joiners that Persian and Sinhala names need.
        validate_email(
            f"{local}@domain.example",
            check_deliverability=False,
            globally_deliverable=False,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_display_name=False,
            allow_empty_local=False,
            strict=True,
        )
    except EmailNotValidError:
        raise _refused("only plain addresses are taken: no quotes, comments, brackets or spaces") from None
    return normal


def _refuse_look_alikes(local: str) -> None:
    if local.isascii():
        return
    # Thai and Lao type their vowel am as one letter, which has no other normal spelling than two.
    spelled = local.replace("\u0e33", "\u0e4d\u0e32").replace("\u0eb3", "\u0ecd\u0eb2")
    if unicodedata.normalize("NFKC", spelled) != spelled or _INVISIBLE.search(local):
        raise _refused("the part before the @ has look-alike or invisible characters")


def _domain(domain: str) -> str:
    """Lower-case A-labels, or ValueError. What UTS 46 would map to something else than lower case is refused."""
    if len(domain) > 253:
        raise _refused("a domain has at most 253 octets")
    lowered = domain.lower()
    try:
        if not domain.isascii() and not _maps_to_lower_case_only(domain, lowered):
            raise _refused("the domain has look-alike or invisible characters")
        encoded = idna.encode(lowered, strict=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise _refused("the domain is not a valid internet domain name") from None
    labels = encoded.split(".")
    if len(labels) < 2:
        raise _refused("the domain needs at least two names, like example.org")
    if len(labels[-1]) < 2 or not labels[-1][0].isalpha():
        raise _refused("the domain ends in something that is no top-level domain")
    return encoded


def _maps_to_lower_case_only(domain: str, lowered: str) -> bool:
    for letter in domain:
        if not letter.isascii() and any(piece.isascii() for piece in letter.lower()):
            return False
    # Not even NFC: signs that are letters under another number, like Angstrom and Ohm.
    composed = unicodedata.is_normalized("NFC", domain) and unicodedata.is_normalized("NFC", lowered)
    return composed and idna.uts46_remap(domain, std3_rules=True) == lowered


def _refused(reason: Any) -> PydanticCustomError:
    return refusal("address_invalid", reason)


def address_key(address: str) -> str:
    """The form in which two addresses are compared: case-insensitive, look-alikes never equal.

    `address` must come from `parse_address`. Full case folding is not used: it makes `ß` equal to `ss`.
    """
    return address.lower()


def mask_address(address: str) -> str:
    """`a***@e***.org`: enough to recognise an address one knows, too little to write to it. Takes any text."""
    local, at, domain = address.rpartition("@")
    if not at:
        return "***"
    name, _, top = domain.rpartition(".")
    if not (top.isascii() and top.isalnum() and len(top) <= 24):
        top = "***"
    return f"{_first(local)}***@{_first(name)}***.{top}"


def _first(text: str) -> str:
    return text[:1] if text[:1].isalnum() else ""


class _Address:
    """Makes a string an address in its normal form; strict models take it too."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1, max_length=MAX_ADDRESS)
        return core_schema.no_info_after_validator_function(parse_address, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "idn-email", "minLength": 3, "maxLength": MAX_ADDRESS}


Address = Annotated[str, _Address]
