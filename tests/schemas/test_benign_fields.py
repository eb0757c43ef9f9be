"""What looks odd and is not: real people's names, addresses, links and messages pass unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from postier.schemas.account import Registry
from postier.schemas.edge import admit, read_envelope, reopen

Bend = Callable[[str, str, Any], dict[str, Any]]

NAMES = [
    "O'Brien",
    "Anne-Marie d'Été",
    "Nguyễn Thị Minh Khai",
    "Łukasz Żółć",
    'Jean "Jo" Petit',
    "Smith, John (Sales)",
    "=SUM(A1)",
    "Bcc: Bob",
    "<Team>",
    "山田太郎",
    "אבי כהן",
    "محمد\u200cرضا",
    "Ma\u0308rz",
    "R2-D2; the 2nd",
    "\U0001f469\u200d\U0001f4bb Dev",
    'Eve" <q@z.example>, "',
    "\u200fשלום\u200e",
    "Zoë | Ops",
    "100 % Sûr",
    "{{ name }}",
    "-- --",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f",
]
MESSAGES = [
    "one line",
    "two\nlines",
    ".\n",
    "a\n.\nb",
    "From me\nTo: you\nBcc: them",
    "\ttabbed",
    "x" * 5000,
    "l\n" * 3000,
    "phone \u202a+33 1 23 45 67 89\u202c",
    "<script>alert(1)</script>",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "русский текст",
    "\u2066isolated\u2069",
    "{{ 7 * 7 }} {% raw %}",
    "price: 5 € \u00a0 ok",
    "\ufeffpasted",
    "%0d%0a",
    "\\r\\n",
    "e\u0301",
    "ﷺ",
]
ADDRESSES = [
    "a@example.org",
    "first.last+tag@example.org",
    "O'Neil@example.org",
    "a_b-c=d@sub.sub.example.com",
    "1@example.org",
    "{x}|~`^*/?$#&@example.org",
    "x" * 64 + "@example.org",
    "a@" + "b" * 63 + ".example",
    "a@1-2.example",
    "a@3com.example",
    "élève@example.org",
    "用户@example.org",
    "δοκιμή@example.org",
    "a@xn--caf-dma.example",
    "a@a--b.example",
    "a@x.museum",
    "İ@example.org",
    "ı@example.org",
    "ßtrasse@example.org",
    "น้ำ@example.org",
    "คำแก้ว@example.org",
    "ສີສຳ@example.org",
    "a@xn--mgba3gch31f060k.example",
    "a@xn--10cl1a0b660p.example",
]
LINKS = [
    "https://school.example",
    "https://school.example/",
    "https://school.example?x=1",
    "https://school.example#top",
    "https://school.example:443/reset",
    "https://School.Example/Reset",
    "HTTPS://school.example/x",
    "https://a.b.school.example/x?token=A-_.~%2B%3D",
    "https://school.example/élèves/4b",
    "https://school.example//x",
    "https://school.example/a@b:c;d=e",
    "https://school.example/x?next=/y&z[]=1",
    "https://school.example/x?u=https://a.b/c",
    "https://school.example/a...b/.well-known/x",
    "https://school.example/x#a/../b",
    "https://pages.example/school",
    "https://pages.example/school/a/b?c",
    "https://school.example/" + "a" * 2000,
    "https://xn--caf-dma.school.example/",
    "https://school.example/it's",
    "https://school.example/x?discount=100%",
    "https://school.example/x?next=%252e%252e%252f",
    "https://school.example/a%252eb/%25-off",
]
ROWS = [
    *(("account_validation", "data.recipient.name", name) for name in NAMES),
    *(("contact_form", "data.subject", name) for name in NAMES),
    *(("contact_form", "data.message", message) for message in MESSAGES),
    *(("contact_form", "data.visitor.address", address) for address in ADDRESSES),
    *(("reset_link", "data.action_url", link) for link in LINKS),
    ("contact_form", "data.message", "é" * 100_000),
    ("reset_link", "source", "urn:shop/orders?x=1"),
    ("reset_link", "idempotency_key", "reset:42/été"),
    ("reset_link", "trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("reset_link", "data.device", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("reset_link", "data.ip", "2001:db8::1"),
]


@pytest.mark.parametrize(("kind", "path", "value"), ROWS, ids=[f"{row[1]}-{n}" for n, row in enumerate(ROWS)])
def test_an_odd_but_honest_value_passes_unchanged(
    kind: str, path: str, value: str, bent: Bend, registry: Registry
) -> None:
    envelope = read_envelope(json.dumps(bent(kind, path, value), ensure_ascii=False))
    assert admit(envelope, registry)
    reopened = json.loads(reopen(kind, 1, envelope.data_json()).model_dump_json())
    found: Any = {**json.loads(envelope.model_dump_json()), "data": reopened}
    for step in path.split("."):
        found = found[step]
    assert found == value


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("A.B@EXAMPLE.ORG", "A.B@example.org"),
        ("a@École.example", "a@xn--cole-9oa.example"),
        ("a@faß.example", "a@xn--fa-hia.example"),
        ("a@XN--CAF-DMA.example", "a@xn--caf-dma.example"),
        ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah"),
        ("a@ı.example", "a@xn--cfa.example"),
        ("a@نامه\u200cای.example", "a@xn--mgba3gch31f060k.example"),
        ("a@ශ\u0dca\u200dරී.example", "a@xn--10cl1a0b660p.example"),
    ],
)
def test_a_domain_becomes_lower_case_ascii(given: str, normal: str, bent: Bend) -> None:
    envelope = read_envelope(json.dumps(bent("reset_link", "data.recipient", given)))
    assert envelope.recipients[0].address == normal
    assert read_envelope(envelope.model_dump_json()) == envelope


def test_windows_line_ends_become_line_feeds(bent: Bend) -> None:
    envelope = read_envelope(json.dumps(bent("contact_form", "data.message", "a\r\nb\r\n\r\nc")))
    assert json.loads(envelope.data_json())["message"] == "a\nb\n\nc"
