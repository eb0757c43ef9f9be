"""What a server's reply means, and what a person can do about it.

`classify` maps one reply to one of eight classes. The first step that has an answer wins: success; texts whose meaning
no code changes (suppression, our own rate or quota, login); the SMTP stage; enhanced codes that are precise; the words
of the text; the enhanced code's subject; the reply code.

The first digit of the reply code wins over an enhanced code that disagrees (RFC 5321 section 4.2). Doubt never falls on
the recipient: an unclear permanent refusal is `config` or `permanent_content`, and so is one that speaks of something
of ours, unless it names a person or a mailbox and what is wrong with it.

Sources: RFC 3207, 3463, 4954, 5321, 6531, 7504, 7505; IANA registry of SMTP enhanced status codes; the error pages of
Microsoft, Google, Amazon SES, SendGrid and Mailgun.
"""

import re
from typing import NamedTuple

from postier.drivers import reply_rules_account as account
from postier.drivers import reply_rules_email as email
from postier.drivers.reply_advice import advice
from postier.drivers.reply_class import ReplyClass
from postier.drivers.reply_text import EXAMINED_CHARACTERS, normalise

__all__ = ["ReplyClass", "advice", "classify", "parse_enhanced"]

SENT = ReplyClass.SENT
RETRY = ReplyClass.RETRY
THROTTLE = ReplyClass.THROTTLE
RECIPIENT = ReplyClass.PERMANENT_RECIPIENT
CONTENT = ReplyClass.PERMANENT_CONTENT
CONFIG = ReplyClass.CONFIG
AUTH = ReplyClass.AUTH
SUPPRESS = ReplyClass.SUPPRESS

_LEADING_ENHANCED = re.compile(r"\s*#?([245]\.\d{1,3}\.\d{1,3})(?![.\d])[:\s-]*")
_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\.?\d)")
_LEADING_CODE = re.compile(r"\W{0,9}(?:b['\"]|smtp;)?\s{0,9}([45]\d\d)(?=[ \t-])[ \t-]*", re.IGNORECASE)


class _Reply(NamedTuple):
    code: int  # 0: none
    status: tuple[int, int] | None  # subject and detail of the enhanced code
    linked: str  # prepared text with its links: blocklists are often named in a link only
    text: str
    stage: str | None


def parse_enhanced(text: str) -> tuple[str | None, str]:
    """Split a leading enhanced status code (RFC 2034) off a reply text: `("5.1.1", "User unknown")`.

    The same code at the start of further lines is removed with it. Without a leading code the text comes back
    unchanged. Never raises; calling it twice is safe.
    """
    found = _LEADING_ENHANCED.match(text)
    if found is None:
        return None, text
    enhanced = found.group(1)
    return enhanced, re.sub(rf"(?m)^#?{re.escape(enhanced)}[:\s-]+", "", text[found.end() :])


def classify(code: int | None, enhanced: str | None, text: str, stage: str | None = None) -> ReplyClass:
    """Return what a reply means.

    `code` is the SMTP reply code or HTTP status, None when there was none (a dropped connection, a provider's event);
    `enhanced` the RFC 3463 code if known, else it is looked for in `text`; `text` the server's words, of which the
    first 2,000 characters count; `stage` one of connect, ehlo, starttls, auth, mail, rcpt, data, body, http, or None.
    Without a code the answer is never `sent`. Never raises. Pure: the same reply always gives the same class.
    """
    if code is not None and 200 <= code <= 299:
        return SENT
    if code is None or not 400 <= code <= 699:
        text = text[:EXAMINED_CHARACTERS]
        quoted = _LEADING_CODE.match(text)
        if quoted is None:
            return _without_code(enhanced, text, stage)
        code, text = int(quoted.group(1)), text[quoted.end() :]
    reply = _read(code, enhanced, text, stage)
    if stage == "http" or code >= 600 or (stage is None and _is_http(reply)):
        return _http(reply)
    return _temporary(reply) if code < 500 else _permanent(reply)


def _read(code: int, enhanced: str | None, text: str, stage: str | None) -> _Reply:
    linked, prose = normalise(text)
    found = _ENHANCED.search(enhanced[:20] if enhanced else linked[:300])
    return _Reply(code, (int(found[2]), int(found[3])) if found else None, linked, prose, stage)


def _without_code(enhanced: str | None, text: str, stage: str | None) -> ReplyClass:
    """A broken connection, or a provider's event whose words are all there is."""
    reply = _read(0, enhanced, text, stage)
    if email.SUPPRESSED.search(reply.text):
        return SUPPRESS
    found = _ENHANCED.search(enhanced[:20] if enhanced else reply.linked[:300])
    if found is not None and found[1] != "2":
        return _temporary(reply) if found[1] == "4" else _permanent(reply)
    if account.OWN_RATE.search(reply.text):
        return THROTTLE
    if reply.text in {"invalid", "invalid address", "bounced"}:  # SendGrid's word for an address it will not try
        return RECIPIENT
    if account.CONNECTION.search(reply.text):
        return RETRY
    return _own_session(reply) or _by_words(reply) or RETRY


_HTTP_ONLY = frozenset({400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 425, 429, 507})
_HTTP = {
    401: AUTH, 402: CONFIG, 403: CONFIG, 404: CONFIG, 405: CONFIG, 408: RETRY, 409: RETRY, 410: CONFIG, 413: CONTENT,
    415: CONTENT, 425: RETRY, 429: THROTTLE, 501: CONFIG, 505: CONFIG, 507: THROTTLE,
    605: SUPPRESS, 606: SUPPRESS, 607: SUPPRESS,  # Mailgun's own: bounced before, unsubscribed, complained
}  # fmt: skip


def _is_http(reply: _Reply) -> bool:
    return reply.code in _HTTP_ONLY or (reply.code == 422 and email.SUPPRESSED.search(reply.text) is not None)


def _http(reply: _Reply) -> ReplyClass:
    code, text = reply.code, reply.text
    if code not in (401, 429) and not 500 <= code <= 599 and email.SUPPRESSED.search(text):
        return SUPPRESS
    if code not in _HTTP or code == 403:
        if account.OWN_RATE.search(text):
            return THROTTLE
        if 500 <= code <= 599:
            return RETRY
        if code in (400, 403) and account.LOGIN.search(text):
            return AUTH
    return _HTTP.get(code) or _by_words(reply) or (CONFIG if code >= 600 else CONTENT)


_LESS_OF_US = (account.OWN_RATE, account.REPUTATION_RATE, account.TOO_MANY_RECIPIENTS)


def _temporary(reply: _Reply) -> ReplyClass:
    if reply.status == (7, 12):  # RFC 4954: a password transition is needed
        return AUTH
    if account.GREYLISTED.search(reply.text):
        return RETRY
    if any(rule.search(reply.text) for rule in _LESS_OF_US):
        return THROTTLE
    subject, detail = reply.status or (0, 0)
    # Too many recipients, and Microsoft's 4.7.500 to 4.7.699 "server busy", which is about us.
    if reply.status == (5, 3) or (subject == 7 and (detail == 28 or 500 <= detail <= 699)):
        return THROTTLE
    return RETRY


def _permanent(reply: _Reply) -> ReplyClass:
    stage, text = reply.stage, reply.text
    if stage == "auth":
        return CONFIG if reply.code in (523, 538) or account.WANTS_TLS.search(text) else AUTH
    before_mail = stage in ("connect", "ehlo", "starttls")
    if not before_mail and stage != "mail" and _suppressed(reply):
        return SUPPRESS
    if account.GREYLISTED.search(text) or (stage is None and reply.code <= 504 and account.OUTAGE.search(text)):
        return RETRY
    if account.TOO_MANY_RECIPIENTS.search(text):
        return THROTTLE  # RFC 5321 section 4.5.3.1.10: read a 552 of this kind as 452
    if account.OWN_RATE.search(text) and not account.UNSOLICITED.search(text):
        return THROTTLE
    if before_mail:
        return CONFIG
    return _own_session(reply) or (_at_mail(reply) if stage == "mail" else _at_email(reply))


def _suppressed(reply: _Reply) -> bool:
    if reply.status == (7, 507) or email.SUPPRESSED.search(reply.text) is None:  # 5.7.507: an IP the recipient blocks
        return False
    return account.SPEAKS_OF_US.search(reply.text) is None


def _own_session(reply: _Reply) -> ReplyClass | None:
    """Refusals of our session, whatever the server calls them: the right to send as this address, TLS, login."""
    text, status = reply.text, reply.status
    if reply.code in (523, 538) or account.WANTS_TLS.search(text):
        return CONFIG
    if account.OWN_MAILBOX.search(text) or account.SEND_AS.search(text):
        return CONFIG
    if status in _INSIDERS_ONLY or email.INSIDERS_ONLY.search(text):
        return None if reply.stage == "mail" else RECIPIENT
    if status in _LOGIN or account.LOGIN.search(text):
        return AUTH
    if reply.code in (530, 534, 535) and not (account.SENDER_DNS.search(text) or email.TOO_BIG.search(text)):
        return AUTH
    return None


def _at_mail(reply: _Reply) -> ReplyClass:
    """MAIL FROM is answered before any recipient is named, so no recipient is to blame."""
    if email.FULL.search(reply.text):
        return CONFIG
    return CONTENT if reply.code == 552 or reply.status in ((3, 4), (2, 3)) else CONFIG


def _at_email(reply: _Reply) -> ReplyClass:
    if reply.code in (503, 517, 518):  # Courier writes X.1.7 and X.1.8, the sender's address, as 517 and 518
        return CONFIG
    if reply.code in _SYNTAX_CODES and account.PROTOCOL.search(reply.text):
        return CONFIG
    precise = _by_precise_status(reply.status)
    answer = (_blame(reply) if precise is RECIPIENT else precise) or _by_words(reply) or _by_subject(reply)
    if answer is not None:
        return answer
    if reply.stage == "rcpt" or reply.code == 556:  # RFC 7504: a domain that takes no mail
        return _blame(reply)
    return CONTENT if reply.stage in ("data", "body") or reply.code in (552, 554) else CONFIG


_SYNTAX_CODES = frozenset({500, 502, 504, 555})
_INSIDERS_ONLY = frozenset({(7, 12), (7, 124), (7, 129), (7, 133), (7, 134), (7, 135), (7, 136)})
_LOGIN = frozenset({(7, 8), (7, 57), (7, 139)})
_ADDRESS_OR_MAILBOX = frozenset({(1, 1), (1, 3), (1, 4), (1, 6), (1, 9), (2, 1), (2, 2), (2, 4), (3, 2), (7, 13)})
_PRECISE = {
    (1, 7): CONFIG, (1, 8): CONFIG, (2, 252): CONFIG, (7, 60): CONFIG, (7, 64): CONFIG,
    (2, 121): THROTTLE, (2, 122): THROTTLE, (4, 5): THROTTLE, (7, 38): THROTTLE, (7, 508): THROTTLE, (7, 705): THROTTLE,
    (2, 3): CONTENT, (3, 4): CONTENT, (7, 350): CONTENT, (7, 512): CONTENT,
    (1, 2): RECIPIENT, (1, 10): RECIPIENT, (4, 4): RECIPIENT, (6, 7): RECIPIENT, (6, 10): RECIPIENT,
    (7, 17): RECIPIENT, (7, 18): RECIPIENT, (7, 504): RECIPIENT, (7, 505): RECIPIENT,
}  # fmt: skip


def _by_precise_status(status: tuple[int, int] | None) -> ReplyClass | None:
    """Codes that servers use for one thing only: the IANA registry's, and Microsoft's 5.7.500 to 5.7.799."""
    if status is None:
        return None
    subject, detail = status
    if subject == 7 and (20 <= detail <= 29 or detail == 32 or 500 <= detail <= 799):
        return _PRECISE.get(status, CONFIG)
    return _PRECISE.get(status)


# The order is the rule: the more telling words stand before the ones that come along with anything.
_WORDS = (
    (account.RELAY, CONFIG),
    (email.FULL, RECIPIENT),
    (email.VIRUS, CONTENT),
    (email.MESSAGE_FORMAT, CONTENT),
    (email.TOO_BIG, CONTENT),
    (email.LINK_LISTED, CONTENT),
    (account.SENDER_DNS, CONFIG),
    (account.LISTED, CONFIG),
    (account.SENDER, CONFIG),
    (email.SPAM_WORDS, CONTENT),
    (email.GONE, RECIPIENT),
    (email.SPAM, CONTENT),
)


def _by_words(reply: _Reply) -> ReplyClass | None:
    for rule, answer in _WORDS:
        if rule.search(reply.linked if answer is CONFIG else reply.text):
            return _blame(reply) if rule is email.GONE else answer
    return None


def _blame(reply: _Reply) -> ReplyClass:
    """The recipient, unless the reply speaks of something of ours and names nobody: that mistake costs an address."""
    if account.POINTS_AT_US.search(reply.text) and email.NAMES_RECIPIENT.search(reply.text) is None:
        return CONFIG
    return RECIPIENT


def _by_subject(reply: _Reply) -> ReplyClass | None:
    """The enhanced code's subject, and the words that tell little alone."""
    subject = reply.status[0] if reply.status else None
    if subject == 6:
        return CONTENT
    if email.RECIPIENT_REFUSED.search(email.ANY_RESTRICTION.sub("", reply.text)):
        return CONFIG if email.POLICY.search(reply.text) else _blame(reply)
    if reply.status in _ADDRESS_OR_MAILBOX:
        return _blame(reply)
    if account.PROTOCOL.search(reply.text):
        return CONFIG
    if email.REFUSED_MESSAGE.search(reply.text):
        return CONTENT
    return CONFIG if subject in (3, 4, 5, 7) else None
