"""What a domain's DNS says about mail in its name, and what to publish.

SPF is RFC 7208, DKIM RFC 6376, DMARC RFC 7489. Only looks; every question has three seconds, and there are a few dozen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dns.exception
import dns.rdatatype
import dns.resolver
import idna

from postier.drivers.presets import preset as known_preset
from postier.schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class _Vendor:
    """What a provider documents: the host to include, the DKIM selectors it hands out, and whether its return path is
    another domain than the sender's, so that the sender's SPF record is never asked.
    """

    include: str = ""
    selectors: tuple[str, ...] = ()
    own_return_path: bool = False


# By the preset's host. Read in November 2026; what a vendor shows only to its customer, per domain, is left out.
_VENDORS: dict[str, _Vendor] = {
    # support.google.com/a/answer/33786 (SPF) and 174124: the prefix is "google" unless another one is entered
    "gmail.com": _Vendor("_spf.google.com", ("google",)),
    # learn.microsoft.com/defender-office-365/email-authentication-spf-configure and -dkim-configure
    "office365.com": _Vendor("spf.protection.outlook.com", ("selector1", "selector2")),
    # docs.aws.amazon.com/ses/latest/dg/send-email-authentication-spf.html: MAIL FROM is amazonses.com, or a subdomain
    # with a record of its own; the names of DKIM tokens are random (API reference, VerifyDomainDkim)
    "amazonaws.com": _Vendor(own_return_path=True),
    # twilio.com/docs/sendgrid/api-reference/domain-authentication: a subdomain for the return path, CNAMEs for DKIM;
    # that these are s1 and s2 is what domains publish
    "sendgrid.net": _Vendor(selectors=("s1", "s2"), own_return_path=True),
    # documentation.mailgun.com/docs/mailgun/user-manual/domains/domains-verify, and api-key-mgmt/mg_security (Automatic
    # Sender Security); older keys have a selector that only the control panel tells
    "mailgun.org": _Vendor("mailgun.org", ("pdk1", "pdk2")),
    # documentation.mailjet.com/hc/en-us/articles/360049641733; the selector is what domains publish
    "mailjet.com": _Vendor("spf.mailjet.com", ("mailjet",)),
    # scaleway.com/en/docs/transactional-email/how-to/add-spf-dkim-records-to-your-domain (no selector)
    "tem.scw.cloud": _Vendor("_spf.tem.scaleway.com"),
}
_USUAL_SELECTORS = ("default", "dkim", "mail", "google", "selector1", "selector2", "s1", "s2", "k1")  # guesses
_LOOKUPS = 10  # RFC 7208 section 4.6.4
_PATIENCE = 3.0  # seconds for one answer
_DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]\Z")
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what DNS says, and one sentence on what to do."""

    name: Literal["spf", "dkim", "dmarc"]
    result: Literal["ok", "warn", "fail"]
    words: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as one JSON-ready object."""
        return asdict(self)


def examine(
    domain: str,
    *,
    preset: str | None = None,
    includes: Collection[str] = (),
    selectors: Collection[str] = (),
    nameserver: str | None = None,
) -> list[Finding]:
    """Look at the domain. `nameserver` is `address[:port]`, else the system's. Raises ConfigurationError."""
    domain = _plain(domain)
    vendor = _of_vendor(preset)
    for selector in selectors:
        if not _SELECTOR.match(selector):
            raise ConfigurationError(f"--selector {selector}: a selector is one or more labels of letters and digits")
    zone = _Zone(nameserver)
    try:
        return [
            *_spf(zone, domain, tuple(includes), vendor),
            _dkim(zone, domain, tuple(selectors) or tuple(dict.fromkeys((*vendor.selectors, *_USUAL_SELECTORS)))),
            _dmarc(zone, domain),
        ]
    except dns.exception.DNSException as error:
        raise ConfigurationError(f"the name servers give no answer for {domain}: {type(error).__name__}") from None


class _Zone:
    def __init__(self, nameserver: str | None) -> None:
        try:
            self._resolver = dns.resolver.Resolver(configure=nameserver is None)
            if nameserver is not None:
                host, _, port = nameserver.partition(":")
                self._resolver.nameservers = [host]
                self._resolver.port = int(port or 53)
        except (ValueError, dns.exception.DNSException):
            raise ConfigurationError("--nameserver: give an IP address, with :port if it is not 53") from None
        self._resolver.timeout = self._resolver.lifetime = _PATIENCE

    def texts(self, name: str) -> list[str]:
        """Every TXT record of a name, each put together; none when there is no such name."""
        try:
            rows: Any = self._resolver.resolve(name, dns.rdatatype.TXT, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.exception.SyntaxError):
            return []
        return [b"".join(row.strings).decode("utf-8", "replace") for row in rows]


def _plain(domain: str) -> str:
    name = domain.strip().rstrip(".").lower()
    try:
        name = name if name.isascii() else idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        name = ""
    if not _DOMAIN.match(name):
        raise ConfigurationError("DOMAIN: give a domain name such as shop.example")
    return name


def _of_vendor(preset: str | None) -> _Vendor:
    host = known_preset(preset).host if preset is not None else ""
    return next((found for suffix, found in _VENDORS.items() if host.endswith(suffix)), _Vendor())


def _spf(zone: _Zone, domain: str, includes: tuple[str, ...], vendor: _Vendor) -> Iterator[Finding]:
    wanted = vendor.include
    records = [text for text in zone.texts(domain) if re.match(r"v=spf1(?: |\Z)", text, re.IGNORECASE)]
    named = " ".join(f"include:{host}" for host in (*includes, wanted) if host)
    if not records and vendor.own_return_path and not includes:
        advice = (
            "Receivers ask the provider's own return path, so DKIM has to pass; "
            f'if nothing else sends in its name, publish TXT {domain} "v=spf1 -all".'
        )
        yield Finding("spf", "warn", "there is no SPF record", advice)
        return
    if not records:
        yield Finding("spf", "fail", "there is no SPF record", f'Publish TXT {domain} "v=spf1 {named or "mx"} ~all".')
        return
    if len(records) > 1:
        yield Finding("spf", "fail", f"there are {len(records)} SPF records", "Merge them: receivers take only one.")
        return
    (record,) = records
    terms = [term.lower() for term in record.split()[1:]]
    found = {term.lstrip("+").removeprefix("include:") for term in terms if term.lstrip("+").startswith("include:")}
    missing = [host for host in includes if host.lower() not in found]
    lookups = _count(zone, record, {domain})
    if "+all" in terms or "all" in terms:
        yield Finding("spf", "fail", record, "It lets everybody send: end it with ~all or -all.")
    elif lookups > _LOOKUPS:
        advice = f"It takes more than {_LOOKUPS} look-ups, so receivers ignore it: remove includes."
        yield Finding("spf", "fail", record, advice)
    elif missing:
        yield Finding("spf", "fail", record, f"Add include:{' include:'.join(missing)} before its last term.")
    elif wanted and wanted not in found:
        advice = f"Add include:{wanted}, unless the provider uses a return path of its own and DKIM passes."
        yield Finding("spf", "warn", record, advice)
    else:
        yield Finding("spf", "ok", record)


def _count(zone: _Zone, record: str, seen: set[str]) -> int:
    """Look-ups a receiver would make; it stops soon after the limit, so that no chain is followed for long."""
    count = 0
    for term in record.split()[1:]:
        name, _, value = re.sub(r"^[+?~-]", "", term.lower()).partition("=" if term.startswith("redirect=") else ":")
        if name.split("/")[0] in ("a", "mx", "ptr", "exists"):
            count += 1
        if name in ("include", "redirect"):
            count += 1
            if count <= _LOOKUPS and len(seen) <= _LOOKUPS and value not in seen and "%" not in value:
                seen.add(value)
                inner = [text for text in zone.texts(value) if text.lower().startswith("v=spf1")]
                count += _count(zone, inner[0], seen) if inner else 0
    return count


def _dkim(zone: _Zone, domain: str, selectors: tuple[str, ...]) -> Finding:
    revoked = ""
    for selector in selectors:
        for text in zone.texts(f"{selector}._domainkey.{domain}"):
            key = re.search(r"(?:\A|;)\s*p=([^;]*)", text)
            if key and key[1].strip():
                return Finding("dkim", "ok", f"selector {selector} has a key")
            revoked = selector if key else revoked
    if revoked:
        return Finding("dkim", "fail", f"the key of selector {revoked} is revoked", "Publish the provider's new key.")
    advice = "Publish the DKIM records that the provider shows for this domain; name others with --selector."
    return Finding("dkim", "warn", f"no key under {', '.join(selectors)}", advice)


def _dmarc(zone: _Zone, domain: str) -> Finding:
    labels = domain.split(".")
    for start in range(max(1, len(labels) - 1)):
        owner = ".".join(labels[start:])
        records = [text for text in zone.texts(f"_dmarc.{owner}") if re.match(r"v=DMARC1\s*(?:;|\Z)", text)]
        if len(records) > 1:
            return Finding("dmarc", "fail", f"there are {len(records)} DMARC records", "Keep one: others void it.")
        if records:
            return _policy(records[0], inherited=start > 0)
    advice = f'Publish TXT _dmarc.{domain} "v=DMARC1; p=none; rua=mailto:you@{domain}", read the reports, then tighten.'
    return Finding("dmarc", "fail", "there is no DMARC record", advice)


def _policy(record: str, *, inherited: bool) -> Finding:
    tags = {key.strip().lower(): value.strip() for key, _, value in (part.partition("=") for part in record.split(";"))}
    policy = (tags.get("sp") if inherited else None) or tags.get("p", "")
    if policy.lower() in ("quarantine", "reject"):
        return Finding("dmarc", "ok", record)
    if policy.lower() == "none":
        advice = "It only watches: once SPF or DKIM pass in line with the From address, set p=quarantine."
        return Finding("dmarc", "warn", record, advice)
    return Finding("dmarc", "fail", record, "Its policy is none of none, quarantine and reject: receivers ignore it.")
