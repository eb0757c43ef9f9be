"""What an account may say, in words that name the field; presets; finding drivers."""

from __future__ import annotations

import csv
import importlib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from postier.drivers.base import Driver
from postier.drivers.presets import preset, presets
from postier.drivers.provider import ProviderDriver, ProviderOptions
from postier.drivers.registry import driver_names, load_driver
from postier.drivers.smtp import SmtpDriver, SmtpOptions
from postier.schemas.errors import ConfigurationError
from tests.drivers.kit import SENDER

SECRET = "sample-secret-4711"


@pytest.mark.parametrize(
    ("given", "port", "security"),
    [
        ({}, 587, "starttls"),
        ({"port": 465}, 465, "tls"),
        ({"security": "tls"}, 465, "tls"),
        ({"security": "none"}, 25, "none"),
        ({"port": 2525}, 2525, "starttls"),
        ({"port": 8025, "security": "none"}, 8025, "none"),
    ],
)
def test_port_and_security_complete_each_other(given: dict[str, Any], port: int, security: str) -> None:
    options = SmtpOptions.model_validate({"host": "mail.example.com"} | given)

    assert (options.port, options.security) == (port, security)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"host": ""}, "host"),
        ({"host": "https://mail.example.com"}, "host"),
        ({"host": "mail.example.com:25"}, "port"),
        ({"host": "mail example.com"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 70_000}, "port"),
        ({"security": "ssl"}, "security"),
        ({"auth": "cram-md5"}, "auth"),
        ({"username": "u\r\nRSET"}, "username"),
        ({"password": SECRET}, "username"),
        ({"username": "u@example.org", "password": SECRET + "\n"}, "password"),
        ({"username": "u@example.org", "password": SECRET, "security": "none"}, "allow_plain_login"),
        ({"auth": "none", "username": "u@example.org"}, "auth"),
        ({"auth": "plain"}, "username and a password"),
        ({"auth": "xoauth2"}, "username"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"ehlo_name": "x\r\nMAIL FROM:<>"}, "ehlo_name"),
        ({"ehlo_name": "two words"}, "ehlo_name"),
        ({"envelope_from": "a@example.org> NOTIFY=NEVER"}, "envelope_from"),
        ({"envelope_from": "no-at-sign"}, "envelope_from"),
        ({"max_mails_per_session": 0}, "max_mails_per_session"),
        ({"prot": 25}, "prot"),
    ],
)
def test_a_wrong_option_is_named_and_no_secret_shown(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SmtpOptions.model_validate({"host": "mail.example.com"} | given)

    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_what_only_the_driver_can_know_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="password"):
        SmtpDriver(SmtpOptions(host="mail.example.com", username="u@example.org"), sender=SENDER)
    with pytest.raises(ConfigurationError, match="ca_file"):
        SmtpDriver(SmtpOptions(host="mail.example.com", ca_file="/nonexistent/ca.pem"), sender=SENDER)
    with pytest.raises(ConfigurationError, match="allow_hosts"):
        SmtpDriver(SmtpOptions(host="mail.example.com", allow_hosts=("what is this",)), sender=SENDER)


def test_secrets_do_not_show_in_options() -> None:
    options = SmtpOptions(host="mail.example.com", username=SECRET, password=SECRET)  # type: ignore[arg-type]

    assert SECRET not in f"{options!r} {options}"


def test_every_row_of_the_file_is_a_preset() -> None:
    text = resources.files("postier.drivers").joinpath("providers.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))

    assert list(presets()) == [row["name"] for row in rows]
    assert len(rows) == 31
    assert all(found.source_url.startswith("https://") and found.auth_kinds for found in presets().values())
    assert preset("office365").limits() == {
        "per_minute": 30,
        "per_day": 10_000,
        "max_recipients": 500,
        "max_connections": 3,
    }


@pytest.mark.parametrize("name", presets())
def test_every_preset_becomes_a_driver_with_a_sample_secret(name: str) -> None:
    found = preset(name)
    given: dict[str, Any] = {"preset": name, "password": SECRET}
    if found.fixed_username is None and not found.password_is_username:
        given["username"] = "user@example.org"
    if found.needs_region:
        given["region"] = "eu-west-1"

    options = ProviderOptions.model_validate(given)
    smtp = options.smtp_options()
    ProviderDriver(options, sender=SENDER).close()

    assert "{" not in smtp.host
    assert (smtp.port, smtp.security) == (found.port, found.security)
    assert smtp.security != "none"
    assert smtp.auth in ("auto", "xoauth2")
    assert smtp.username
    assert SECRET not in f"{options!r} {smtp!r}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "sendgird", "password": SECRET}, "did you mean sendgrid"),
        ({"preset": "ses", "username": "AKIA", "password": SECRET}, "region: ses needs one"),
        (
            {"preset": "ses", "username": "AKIA", "password": SECRET, "region": "evil.example/"},
            "must look like eu-west-1",
        ),
        ({"preset": "gmail", "password": SECRET}, "username: gmail needs one: full email address"),
        ({"preset": "gmail", "username": "a@example.org", "password": SECRET, "security": "none"}, "allow_plain_login"),
        ({"username": "a@example.org"}, "preset"),
    ],
)
def test_a_partial_provider_account_says_what_is_missing(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ProviderOptions.model_validate(given)

    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_user_names_that_are_the_same_for_everybody_need_not_be_given() -> None:
    sendgrid = ProviderOptions.model_validate({"preset": "sendgrid", "password": SECRET}).smtp_options()
    postmark = ProviderOptions.model_validate({"preset": "postmark", "password": SECRET}).smtp_options()

    assert sendgrid.username == "apikey"
    assert postmark.username == SECRET


def test_a_relay_that_knows_our_address_needs_no_login() -> None:
    smtp = ProviderOptions.model_validate({"preset": "google_workspace_relay"}).smtp_options()

    assert (smtp.auth, smtp.logs_in) == ("none", False)


def test_built_in_drivers_are_found_by_name() -> None:
    assert load_driver("smtp") is SmtpDriver
    assert load_driver("provider") is ProviderDriver
    assert {"smtp", "provider"} <= set(driver_names())


def test_a_driver_is_found_by_its_import_path() -> None:
    assert load_driver("postier.drivers.smtp:SmtpDriver") is SmtpDriver


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smpt", "did you mean smtp"),
        ("", "no driver is named ''"),
        ("acme.mail:AcmeDriver", "cannot import acme.mail"),
        ("postier.drivers.smtp:Nothing", "has no class Nothing"),
        ("postier.drivers.smtp:SmtpOptions", "not a subclass of"),
        ("a b:c", "not of the form package.module:Class"),
        ("os:system;x", "not of the form package.module:Class"),
    ],
)
def test_a_driver_that_cannot_be_loaded_is_named_with_the_problem(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_driver(name)

    assert words in str(caught.value)


THIRD_PARTY = """
from postier.drivers.base import Driver, DriverOptions
class AcmeOptions(DriverOptions):
    token: str
class AcmeDriver(Driver[AcmeOptions]):
    Options = AcmeOptions
"""


def test_a_third_partys_driver_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_postier.py").write_text(THIRD_PARTY)
    info = tmp_path / "acme_postier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-postier\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[postier.drivers]\nacme = acme_postier:AcmeDriver\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()

    found = load_driver("acme")

    assert issubclass(found, Driver)
    assert found.__name__ == "AcmeDriver"
    assert "acme" in driver_names()
