"""Amazon's Signature Version 4 for one request.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

_ALGORITHM = "AWS4-HMAC-SHA256"


class Scope(NamedTuple):
    """Who signs, and for which service in which region."""

    access_key: str
    secret_key: str
    region: str
    service: str


def signature_header(
    method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, *, scope: Scope, at: datetime
) -> str:
    """The Authorization header of a request that is sent with exactly these headers, `host` and `x-amz-date` among
    them.

    `path` is absolute and percent-encoded as it is sent, `query` is without the question mark, `at` is in UTC and the
    moment that `x-amz-date` names. Pure: the same request gives the same header.
    """
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        (
            method,
            quote(path, safe="/~"),
            _query(query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    day = at.strftime("%Y%m%d")
    where = f"{day}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join((_ALGORITHM, stamp(at), where, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{scope.secret_key}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = _digest(key, part)
    signature = _digest(key, text).hex()
    return f"{_ALGORITHM} Credential={scope.access_key}/{where}, SignedHeaders={names}, Signature={signature}"


def stamp(at: datetime) -> str:
    """A moment as `x-amz-date` writes it."""
    return at.strftime("%Y%m%dT%H%M%SZ")


def _query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs))


def _digest(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
