"""Which fault of a server's certificate a failed TLS handshake was about."""

from __future__ import annotations

import ssl

from postier.schemas.errors import NarrowCause

# OpenSSL's X509_V_ERR numbers.
_DATES = frozenset({9, 10})
_NAMES = frozenset({62, 64})


def certificate_cause(error: ssl.SSLCertVerificationError) -> NarrowCause:
    """`certificate_expired` (or not valid yet), `certificate_other_name`, else `certificate_not_trusted`."""
    if error.verify_code in _DATES:
        return "certificate_expired"
    return "certificate_other_name" if error.verify_code in _NAMES else "certificate_not_trusted"
