"""T1, T2, T5, T13: what an accounts file or a stored account may not say, however it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from postier.ledger.account_store import AccountStore, Put
from postier.schemas.account import Account, Registry
from postier.schemas.errors import ConfigurationError, RenderError
from postier.settings.config import describe_first, read_registry
from postier.workers.render import Renderer
from postier.workers.route import build_driver
from tests.attacks.kit import Yard
from tests.attacks.test_replies import harmful
from tests.workers.kit import toml

FINE: dict[str, Any] = {"driver": "smtp", "sender": {"address": "post@school.example", "name": "School"}}
LINES = {
    "crlf": "School\r\nBcc: q@z.example",
    "lf": "School\nX: y",
    "cr": "School\rX",
    "nul": "School\0",
    "bidi": "a\u202eb",
}

WRONG: dict[str, dict[str, Any]] = {
    **{f"sender name {name}": {"sender": {"address": "a@b.example", "name": text}} for name, text in LINES.items()},
    **{f"brand name {name}": {"brand": {"name": text}} for name, text in LINES.items()},
    **{
        f"sender address {text!r}": {"sender": {"address": text}}
        for text in (
            "post@school.example\r\nBcc: q@z.example", "post@school.example> NOTIFY=NEVER", "post", "@school.example",
            "a@school.example, q@z.example", '"x y"@school.example', "post@localhost", "post@[127.0.0.1]", "",
        )
    },
    **{f"reply to {text!r}": {"reply_to": text} for text in ("x\r\ny@z.example", "a@b@z.example", "<a@z.example>")},
    **{
        f"logo {text!r}": {"brand": {"logo_url": text}}
        for text in (
            "javascript:alert(1)", "http://school.example/x.png", "//z.example/x", "data:image/svg+xml,x",
            'https://school.example/"onerror="x', "https://school.example/\n", "https://user@z.example/x", "https://127.0.0.1/x",
            "https://school.example/\u202egnp", "https://sсhool.example/x.png",
        )
    },
    **{
        f"colour {text!r}": {"brand": {"colour": text}}
        for text in ("red;background:url(//z.example)", "#12345g", "#1234567", "expression(x)", "#123456\n", "")
    },
    **{f"driver {text!r}": {"driver": text} for text in ("", "x" * 256)},
    "a field nobody knows": {"headers": {"Bcc": "q@z.example"}},
    "a name that is another's": {"name": "other"},
    "limits below nought": {"limits": {"per_second": -1}},
    "no limit at all": {"limits": {"max_connections": 10**9}},
    "a time zone that is a path": {"limits": {"timezone": "../../etc/passwd"}},
    "a locale that is a path": {"locale": "../en"},
    "itself as fallback": {"fallback": "school"},
    "nobody as fallback": {"fallback": "nobody"},
    "a tenant that does not exist": {"tenant": "nobody"},
}  # fmt: skip
NAMES = ["a b", "A", "a\nb", "", "../x", "é", "a" * 64, "x\u001b[31m", "{x}", "*", "a:b", "-a", ".a"]


def written(folder: Path, accounts: dict[str, Any]) -> Path:
    path = folder / "accounts.toml"
    path.write_text(toml({"accounts": accounts}).replace("\\u007f", "\x7f"))
    return path


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_account_is_refused_with_its_field_and_never_repeated(case: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry_of({"school": FINE | WRONG[case]})
    words = str(caught.value)
    assert "accounts" in words
    assert not list(harmful(words))
    assert "z.example" not in words
    with pytest.raises(ConfigurationError) as caught:
        read_registry(written(tmp_path, {"school": FINE | WRONG[case]}))
    assert "z.example" not in str(caught.value).replace(str(tmp_path), "")


def registry_of(accounts: dict[str, Any]) -> Registry:
    try:
        return Registry.model_validate({"accounts": accounts})
    except ValidationError as error:
        raise ConfigurationError(f"accounts: {describe_first(error, Registry)}") from None


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        registry_of({name: FINE})
    with pytest.raises(ConfigurationError):
        registry_of({name: FINE | {"name": "fine"}})


@pytest.mark.parametrize("driver", [
    "os:system", "subprocess:Popen", "builtins:eval", "postier.workers.main:run", "../smtp", "smtp\n", "smtp;x",
    "a.b:c:d",
    "__import__('os'):x", "postier.drivers.smtp:SmtpOptions", "nothing.of.this:Name", "Smtp", "smtp ", "http://z.example/x:Y",
])  # fmt: skip
def test_a_driver_that_is_none_is_not_made(driver: str) -> None:
    account = Account.model_validate(
        {"name": "school", **FINE, "driver": driver, "options": {"host": "mail.example.com"}}
    )
    with pytest.raises(ConfigurationError) as caught:
        build_driver(account)
    assert not list(harmful(str(caught.value)))


OPTIONS: dict[str, dict[str, Any]] = {
    "ehlo crlf": {"ehlo_name": "mx.example\r\nMAIL FROM:<q@z.example>"},
    "ehlo space": {"ehlo_name": "mx example"},
    "user crlf": {"username": "a\r\nRCPT TO:<q@z.example>", "password": "x"},
    "user nul": {"username": "a\0b", "password": "x"},
    "password crlf": {"username": "a", "password": "x\r\ny"},
    "password nul": {"username": "a", "password": "x\0y"},
    "envelope parameter": {"envelope_from": "a@school.example> NOTIFY=NEVER"},
    "envelope crlf": {"envelope_from": "a@school.example>\r\nRCPT TO:<q@z.example"},
    "host crlf": {"host": "mail.example.com\r\nx"},
    "host url": {"host": "http://127.0.0.1/"},
    "host user": {"host": "a@mail.example.com"},
    "port": {"port": 0},
    "port large": {"port": 65536},
    "time without end": {"timeout_ms": 10**9},
    "no time": {"timeout_ms": 0},
    "downgrade": {"security": "opportunistic"},
    "password in clear": {"security": "none", "username": "a", "password": "x"},
    "an option nobody knows": {"verify": False},
    "a mechanism nobody knows": {"auth": "cram-md5"},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_would_speak_smtp_are_refused(case: str) -> None:
    options = {"host": "mail.example.com", **OPTIONS[case]}
    with pytest.raises(ConfigurationError) as caught:
        build_driver(Account.model_validate({"name": "school", **FINE, "options": options}))
    assert "z.example" not in str(caught.value)
    assert not list(harmful(str(caught.value)))


@pytest.mark.parametrize(
    "case", ["allow_hosts", "ca_file", "env", "file", "deep", "import path", "file driver", "memory driver"]
)
def test_a_tenants_person_stores_no_account_that_reaches_into_the_platform(case: str, yard: Yard) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "allow_hosts": {"options": {"host": "127.0.0.1", "allow_hosts": ["127.0.0.1"]}},
        "ca_file": {"options": {"host": "mail.example.com", "ca_file": "/etc/passwd"}},
        "env": {"options": {"host": "mail.example.com", "password": "env:POSTIER_SEAL_KEYS"}},
        "file": {"options": {"host": "mail.example.com", "password": "file:/etc/passwd"}},
        "deep": {"options": {"host": "mail.example.com", "more": {"x": ["env:POSTIER_SEAL_KEYS"]}}},
        "import path": {"driver": "tests.attacks.crashing:CrashingDriver", "options": {"password": "x"}},
        "file driver": {"driver": "file", "options": {"folder": "/tmp/owned"}},
        "memory driver": {"driver": "memory"},
    }
    stored = AccountStore(
        yard.store, yard.settings.registry(), who="a tenant's person", sealer=yard.settings.sealer(), trusted=False
    )
    entry = Account.model_validate({"name": "reaching", "tenant": "shop", **FINE, **wrong[case]})
    with pytest.raises(ConfigurationError):
        stored.put(Put(entry))
    assert "reaching" not in stored.merged().registry.accounts


def test_a_registry_has_no_options_where_publishers_read_it(yard: Yard) -> None:
    text = b" ".join(yard.store.redis.hgetall(yard.store.key("registry")).values()).decode()
    assert "127.0.0.1" not in text
    assert '"options"' not in json.dumps(text)


def test_no_brand_makes_a_mail_that_cannot_leave() -> None:
    """What the configuration lets through, the renderer must be able to write."""
    for name in ('"', "\\", "a, b", "<x>", "é" * 128, "=?utf-8?q?x?=", "{{ x }}", "x" * 128):
        account = Account.model_validate(
            {"name": "a", "driver": "null", "sender": {"address": "a@b.example", "name": name}}
        )
        try:
            Renderer(account)
        except RenderError as error:
            raise AssertionError(name) from error
