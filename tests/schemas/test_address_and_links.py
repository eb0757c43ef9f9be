"""The address and link parsers by themselves."""

from __future__ import annotations

import itertools

import pytest

from postier.schemas.account import Tenant
from postier.schemas.address import address_key, mask_address, parse_address
from postier.schemas.links import check_link

LOOK_ALIKES = [
    "mike@example.org",
    "mıke@example.org",
    "mİke@example.org",
    "mіke@example.org",
    "mike@examp1e.org",
    "mike@еxample.org",
    "mikе@example.org",
    "strasse@example.org",
    "straße@example.org",
    "mike@ẹxample.org",
    "mike@example.crg",
    "mi.ke@example.org",
    "mike+a@example.org",
]


def test_look_alikes_never_compare_equal() -> None:
    keys = {text: address_key(parse_address(text)) for text in LOOK_ALIKES}
    for (one, one_key), (other, other_key) in itertools.combinations(keys.items(), 2):
        assert one_key != other_key, (one, other)


def test_letter_case_does_not_tell_addresses_apart() -> None:
    assert address_key(parse_address("Élodie.B@Example.ORG")) == address_key(parse_address("élodie.b@example.org"))


@pytest.mark.parametrize("text", ["a@example.org", "élève@école.example", "A+b@EXAMPLE.org"])
def test_parsing_a_parsed_address_changes_nothing(text: str) -> None:
    once = parse_address(text)
    assert parse_address(once) == once


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("alice@mail.example.org", "a***@m***.org"),
        ("élève@xn--cole-9oa.example", "é***@x***.example"),
        ("no address at all", "***"),
        ("\x1b[31m@\nx", "***@***.***"),
        ("", "***"),
        ("a@b", "a***@***.b"),
    ],
)
def test_a_masked_address_tells_too_little_to_write_to(address: str, masked: str) -> None:
    assert mask_address(address) == masked


@pytest.mark.parametrize(
    ("entry", "link", "allowed"),
    [
        ("shop.example", "https://shop.example/x", True),
        ("shop.example", "https://a.shop.example/x", False),
        ("*.shop.example", "https://a.b.shop.example/x", True),
        ("*.shop.example", "https://shop.example/x", False),
        ("*.shop.example", "https://evilshop.example/x", False),
        ("shop.example/", "https://shop.example/x", True),
        ("shop.example/go", "https://shop.example/go", True),
        ("shop.example/go", "https://shop.example/go?x=1", True),
        ("shop.example/go/", "https://shop.example/go/x", True),
        ("shop.example/go", "https://shop.example/gone", False),
        ("shop.example/go", "https://shop.example/", False),
        ("shop.example/go", "https://shop.example/GO/x", False),
        ("*.shop.example/go", "https://a.shop.example/go/x", True),
        ("*.shop.example/go", "https://a.shop.example/x", False),
    ],
)
def test_an_allowed_host_allows_what_it_says_and_no_more(entry: str, link: str, allowed: bool) -> None:
    assert Tenant(name="shop", allowed_hosts=(entry,)).allowed_hosts == (entry,)
    if allowed:
        assert check_link(link, [entry]) == link
    else:
        with pytest.raises(ValueError, match="not among those"):
            check_link(link, [entry])


@pytest.mark.parametrize("link", ["https://shop.example/", "https://localhost/"])
def test_without_allowed_hosts_no_link_is_allowed(link: str) -> None:
    with pytest.raises(ValueError, match=r"a link names|not among"):
        check_link(link, [])


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "localhost",
        "*.example",
        "Shop.example",
        "shop.example:443",
        "https://shop.example",
        "a@shop.example",
        "127.0.0.1",
        "0x7f.1",
        "shop.example.",
        "*.*.shop.example",
        "sh*p.example",
        "shop.example?x",
        "shop.example/a/../b",
        "shop.example#x",
        "école.example",
        "shop example",
    ],
)
def test_a_tenant_cannot_allow_what_is_no_host(entry: str) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        Tenant(name="shop", allowed_hosts=(entry,))
