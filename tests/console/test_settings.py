"""What is wrong with a `POSTIER_…` variable is told by its name, before it costs anybody a mail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postier.console.main import main
from postier.schemas.errors import ConfigurationError
from postier.settings.config import load_settings, unknown_variables
from postier.workers.supervisor import supervise


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, seal_key: str) -> None:
    """No variable but those of the test."""
    for name in [name for name in os.environ if name.startswith("POSTIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("POSTIER_SEAL_KEYS", seal_key)
    monkeypatch.setenv("POSTIER_REDIS_URL", "redis://127.0.0.1:1/0")


def unknown() -> list[str]:
    return list(unknown_variables(load_settings()))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POSTIER_THREAD", "; did you mean POSTIER_THREADS?"),
        ("POSTIER_SEAL_KEY", "; did you mean POSTIER_SEAL_KEYS?"),
        ("POSTIER_KEEP_SENT_SECOND", "; did you mean POSTIER_KEEP_SENT_SECONDS?"),
        ("POSTIER_ALLOW_VOLATIL", "; did you mean POSTIER_ALLOW_VOLATILE?"),
        ("POSTIER_Allow_Volatile", "; did you mean POSTIER_ALLOW_VOLATILE?"),  # read as it is written, unlike settings
        ("POSTIER_CHEESE_BOARD", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_told_with_the_one_that_was_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "9")

    assert unknown() == [f"{name} is not a setting{meant}"]
    main(["doctor", "--health"])
    assert f"warn  settings    {name} is not a setting{meant}\n" in capsys.readouterr().out


def test_what_is_read_and_what_others_set_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = tmp_path / "accounts.toml"
    accounts.write_text('# password = "env:POSTIER_RELAY_LOGIN"\n', "utf-8")
    for name, value in {
        "POSTIER_Threads": "3",
        "POSTIER_ALLOW_VOLATILE": "1",
        "POSTIER_ACCOUNTS_FILE": str(accounts),
        "POSTIER_RELAY_LOGIN": "a secret of an account",
        # A service named postier, and one named postier-valkey, in the same namespace of Kubernetes.
        "POSTIER_SERVICE_HOST": "10.0.0.1",
        "POSTIER_PORT": "tcp://10.0.0.1:80",
        "POSTIER_PORT_80_TCP_ADDR": "10.0.0.1",
        "POSTIER_VALKEY_SERVICE_PORT_RESP": "6379",
        "POSTIER_VALKEY_PORT_6379_TCP": "tcp://10.0.0.1:6379",
    }.items():
        monkeypatch.setenv(name, value)

    assert unknown() == []
    assert load_settings().threads == 3


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNTS_FILE", "THREADS", "DATA_DIR", "LOG_LEVEL"):
        monkeypatch.setenv(f"POSTIER_{name}", "")

    settings = load_settings()

    assert (settings.accounts_file, settings.threads, str(settings.data_dir)) == (None, 8, ".postier")
    assert not settings.registry().accounts


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("THREADS", "many", "must be a whole number, like 587"),
        ("THREADS", "0", "must be greater than or equal to 1"),
        ("LOG_FORMAT", "text", "must be one of 'console' or 'json'"),
    ],
)
def test_a_wrong_value_is_told_in_words(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"POSTIER_{name}", value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert str(caught.value) == f"POSTIER_{name}: {words}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("10.0.0.0/8, two words", "'two words' is not a host name, an address or a network"),
        ("relay:99999", "'relay:99999' has a port outside 1 to 65535"),
    ],
)
def test_a_list_of_inner_hosts_with_a_mistake_is_blamed_itself_and_not_every_account(
    value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTIER_EGRESS_ALLOW", value)

    assert main(["doctor", "--health"]) == 1
    assert f"fail  settings    POSTIER_EGRESS_ALLOW: {words}" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match=r"^POSTIER_EGRESS_ALLOW: "):
        supervise(load_settings())
