"""Recipients for providers that read them from the message itself instead of an envelope."""

from __future__ import annotations

import re
from email.utils import getaddresses

from postier.schemas.email import Email

_FIELD = re.compile(rb"[!-9;-~]+:(?:[^\r\n]|\r\n[ \t])*(?:\r\n|\Z)")


def without_strangers(email: Email) -> tuple[bytes, bytes, tuple[str, ...]]:
    """The headers, the body, and the recipients that the headers do not show.

    A To or Cc that names somebody who is no recipient (a packet's says the sender) would make the provider write to
    them: it goes, as does every Bcc. The empty line between headers and body belongs to neither.
    """
    head, _, body = email.mime.partition(b"\r\n\r\n")
    wanted = {address.lower() for address in email.recipients}
    shown: set[str] = set()
    kept: list[bytes] = []
    for line in _FIELD.findall(head):
        name = line.partition(b":")[0].lower()
        if name in (b"to", b"cc", b"bcc"):
            names = _addresses(line)
            if name == b"bcc" or not names or not names <= wanted:
                continue
            shown |= names
        kept.append(line if line.endswith(b"\r\n") else line + b"\r\n")
    if not shown:
        kept.append(b"To: undisclosed-recipients:;\r\n")
    return b"".join(kept), body, tuple(address for address in email.recipients if address.lower() not in shown)


def _addresses(line: bytes) -> set[str]:
    value = line.partition(b":")[2].decode("utf-8", "replace").replace("\r\n", "")
    return {address.lower() for _, address in getaddresses([value]) if address}
