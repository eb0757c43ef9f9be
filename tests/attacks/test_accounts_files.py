"""T1, T2, T5, T13: what an accounts file or a stored account may not say, however it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from postier.console.ledger_access import redis_address
from postier.ledger.account_store import AccountStore, Put
from postier.ledger.accounts import pace
from postier.ledger.store import Store
from postier.schemas.account import Account, Registry
from postier.schemas.errors import ConfigurationError, RenderError
from postier.settings.config import describe_first, load_settings, read_registry
from postier.settings.secrets import resolve_secret
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


HEAD = '[accounts.school]\ndriver = "smtp"\nsender = { address = "post@school.example" }\n'
FILES: dict[str, tuple[str, str]] = {
    "digits": (HEAD + "[accounts.school.limits]\nper_day = " + "9" * 5000, "too many digits"),
    "hexadecimal digits": (HEAD + "[accounts.school.limits]\nper_day = 0x" + "f" * 5000, "per_day"),
    "deep lists": (HEAD + "[accounts.school.options]\nx = " + "[" * 5000 + "]" * 5000, "too deep"),
    "deep tables": (HEAD + "[accounts.school.options]\nx = " + "{a=" * 3000 + "1" + "}" * 3000, "too deep"),
    "a limit beyond counting": (HEAD + "[accounts.school.limits]\nper_hour = " + "9" * 400, "per_hour"),
    "a budget beyond counting": (HEAD + "[tenants.school]\ncontact_per_hour = 9223372036854775808", "contact_per_hour"),
    "a cooldown for ever": (HEAD + "[tenants.school.cooldowns]\nreset_link = 99999999999999999999", "reset_link"),
    "no number as a rate": (HEAD + "[accounts.school.limits]\nper_second = nan", "per_second"),
    "no end as a rate": (HEAD + "[accounts.school.limits]\nper_second = inf", "per_second"),
    "other digits as an hour": (HEAD + '[accounts.school.limits]\nday_resets_at = "0\u0661:00"', "day_resets_at"),
    "half a character": (HEAD + 'x = "\\ud800"', "not valid TOML"),
    "a table twice": (HEAD + HEAD, "twice"),
    "UTF-16": (HEAD.encode("utf-16-le").decode("latin-1"), "not valid TOML"),
    "a NUL": (HEAD + "\0", "not valid TOML"),
    "a time zone with a NUL": (HEAD + '[accounts.school.limits]\ntimezone = "UTC\\u0000"', "timezone"),
    "a time zone that is a folder": (HEAD + '[accounts.school.limits]\ntimezone = "Europe"', "timezone"),
    "every host": (HEAD + '[tenants.school]\nallowed_hosts = ["*"]', "allowed_hosts"),
    "every host of a top-level domain": (HEAD + '[tenants.school]\nallowed_hosts = ["*.com"]', "allowed_hosts"),
    "a Kelvin host": (HEAD + '[tenants.school]\nallowed_hosts = ["\u212a.example"]', "allowed_hosts"),
    "a path that climbs": (HEAD + '[tenants.school]\nallowed_hosts = ["a.example/%252e%252e/x"]', "allowed_hosts"),
    "a Kelvin logo": (HEAD + '[accounts.school.brand]\nlogo_url = "https://\u212a.example/x.png"', "logo_url"),
    "an escape as a form": (HEAD + '[tenants.school.forms."x\\u001b[31m\\u202e"]\nrecipients = ["bad"]', "recipients"),
    "an escape as a form without account": (
        HEAD + '[tenants.school.forms."x\\u001b[31m"]\nrecipients = ["a@b.example"]\naccount = "nobody"', "nobody"
    ),
    "a line as a rule": (HEAD + '[tenants.school.rules]\n"x\\nlevel=info"= "nobody"', "nobody"),
    "an escape as a setting": (HEAD + '"x\\u001b]0;owned\\u0007\\u2028" = 1', "no such setting"),
    "an escape as an account": ('[accounts."x\\u001b[31m"]\ndriver = "null"', "name"),
    "direction as a tenant": (HEAD + '[tenants."x\\u202e"]', "name"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_accounts_file_is_refused_in_one_readable_line(case: str, tmp_path: Path) -> None:
    text, words = FILES[case]
    path = tmp_path / "accounts.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_registry(path)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_accounts_file_may_come_from_a_windows_editor(mark: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_bytes((mark + HEAD.replace("\n", end)).encode())
    assert list(read_registry(path).accounts) == ["school"]


@pytest.mark.parametrize("reference", [
    "file:\0", "file:/etc/hostname\0.txt", "file:/dev/zero", "file:x\x1b[31m", "file:", "file:/", "file:" + "x" * 5000,
    "env:A\0B", "env:x\x1b[31m", "env:\ud800", "env:x\nPOSTIER", "env:",
], ids=ascii)  # fmt: skip
def test_a_reference_to_no_secret_is_refused_in_one_readable_line(reference: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_secret(reference, where="accounts.school.options.password")
    assert str(caught.value).startswith("accounts.school.options.password: ")
    assert str(caught.value).isprintable()


def test_a_secret_may_come_from_a_windows_editor(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes("\ufeffcorrect horse\r\n".encode())
    assert resolve_secret(f"file:{tmp_path / 'password'}", where="x") == "correct horse"


@pytest.mark.parametrize("url", [
    "redis://:hunter2/x@redis.example:6379/0", "redis://u:hunter2#x@redis.example", "redis://u:hunter2?x@redis.example",
    "redis://u:hunter2\u2100@redis.example/0", "redis://u:hunter2/x@[::1]:6379", "redis://u:hunter2@redis.example:x/0",
    "http://u:hunter2@redis.example/", "redis://u:hunter2@[::1/0", "redis://u:hunter2@redis.example:99999/0",
])  # fmt: skip
def test_a_wrong_address_of_redis_is_never_repeated_with_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Store(url)
    said = str(caught.value) + redis_address(url)
    assert "POSTIER_REDIS_URL" in said
    assert "hunter2" not in said


def test_the_rest_of_a_password_is_no_place_of_redis() -> None:
    assert redis_address("redis://:12345/hunter2@redis.example:6379/0") == "localhost:12345"
    assert redis_address("unix://u:hunter2@/run/redis.sock") == "unix:///run/redis.sock"


@pytest.mark.parametrize(("name", "value"), [
    ("REDIS_TIMEOUT", "inf"), ("REDIS_TIMEOUT", "1e400"), ("REDIS_TIMEOUT", "nan"), ("CONVERSATION_SECONDS", "inf"),
    ("LEASE_SECONDS", "nan"), ("KEEP_SENT_SECONDS", "9" * 30), ("KEEP_KEYS_SECONDS", "9" * 20),
    ("THREADS", "9" * 5000), ("NAMESPACE", "x\x1b[31m"), ("LOG_LEVEL", "debug\n"),
])  # fmt: skip
def test_a_setting_without_measure_is_refused_by_its_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"POSTIER_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"POSTIER_{name}: ")
    assert str(caught.value).isprintable()


def test_the_least_rate_that_can_be_written_makes_an_interval() -> None:
    assert 0 < pace(5e-324, 1.0) < 2**53
    assert pace(5.0, 1.0) < pace(0.5, 1.0) < pace(0.000_01, 60.0)


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
