"""`postier accounts …`, `kinds`, `doctor`, and what every command has in common."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from postier.console.demo_catcher import Catcher
from postier.console.main import app
from postier.ledger.accounts import configure
from postier.ledger.store import Store
from postier.schemas.json_schema import schema_for
from postier.settings.config import read_registry
from postier.settings.seal import Sealer
from tests.console.helpers import Run, publish, reset_link


def test_accounts_are_listed_with_state_and_waiting_mail(postier: Run, store: Store, tmp_path: Path) -> None:
    publish(postier, tmp_path, reset_link())

    office, spare = postier("accounts", "list", "--json").json["accounts"]

    assert (office["name"], office["state"], office["waiting_urgent"]) == ("office", "ready", 1)
    assert (spare["driver"], spare["waiting_urgent"]) == ("provider", 0)
    assert [line.split()[0] for line in postier("accounts", "list").out.splitlines()] == ["account", "office", "spare"]


def test_mail_of_an_account_that_nobody_has_any_more_is_shown(
    postier: Run, store: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    publish(postier, tmp_path, reset_link())
    file = Path(environment["POSTIER_ACCOUNTS_FILE"])
    file.write_text(file.read_text().replace("office", "desk"))
    configure(store, read_registry(file))

    answer = postier("accounts", "list", "--json").json
    row = postier("accounts", "list").out.splitlines()[-1]
    (found,) = [check for check in postier("doctor", "--json").json["checks"] if check["name"] == "deliveries"]

    assert {one["name"] for one in answer["accounts"]} == {"desk", "spare"}
    assert [(one["name"], one["waiting_urgent"]) for one in answer["removed_with_mail"]] == [("office", 1)]
    assert row.split()[:3] == ["office", "removed", "1"]
    assert "add it again" in row
    assert (found["result"], found["words"]) == ("warn", "1 waiting, 0 in hand, 0 failed; standing still: office")


def test_secrets_are_never_shown(postier: Run, store: Store) -> None:
    for command in (
        ("accounts", "list", "--json"),
        ("accounts", "show", "spare"),
        ("accounts", "show", "spare", "--json"),
    ):
        answer = postier(*command)

        assert answer.code == 0
        assert "plain-text" not in answer.out
        assert "••••••" in answer.out
    assert "file:" in postier("accounts", "show", "office").out


def test_an_unknown_account_is_named_with_those_that_exist(postier: Run, store: Store) -> None:
    assert "there are office, spare" in postier("accounts", "show", "nobody").err
    assert postier("accounts", "pause", "nobody").code == 1
    assert postier("accounts", "check", "nobody").code == 2


def test_check_goes_step_by_step_to_the_test_mail(postier: Run, catcher: Catcher, tmp_path: Path) -> None:
    answer = postier("accounts", "check", "office", "--to", "someone@example.org", "--json")

    assert answer.code == 0
    assert [step["step"] for step in answer.lines] == [
        "resolve", "connect", "tls", "greeting", "login", "sender", "test_mail",
    ]  # fmt: skip
    assert all(step["ok"] and step["account"] == "office" for step in answer.lines)
    (mail,) = (tmp_path / "mail" / "office").glob("*.eml")
    assert "To: someone@example.org" in mail.read_text()


def test_check_stops_at_the_login_with_the_server_s_words_and_advice(
    postier: Run, catcher: Catcher, tmp_path: Path
) -> None:
    (tmp_path / "users" / "office").write_text("another")

    answer = postier("accounts", "check", "office")

    assert answer.code == 1
    last, advice = answer.out.splitlines()[-2:]
    assert last.split()[:2] == ["FAIL", "login"]
    assert "535 5.7.8" in last
    assert "password" in advice
    assert "open sesame" not in answer.out


def test_check_of_a_server_inside_says_which_setting_lets_mail_out_to_it(postier: Run, store: Store) -> None:
    answer = postier("accounts", "check", "new", "--driver", "smtp", "--sender", "a@b.example", "-o", "host=127.0.0.1")

    assert answer.code == 1
    assert "POSTIER_EGRESS_ALLOW" in answer.out


def test_check_names_an_option_that_is_wrong(postier: Run, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "password").unlink()

    (step,) = postier("accounts", "check", "office", "--json").lines

    assert (step["step"], step["ok"]) == ("options", False)
    assert "accounts.office.options.password: cannot read" in step["words"]


def test_kinds_are_listed_and_their_schema_is_the_committed_one(postier: Run) -> None:
    kinds = postier("kinds", "--json").json["kinds"]

    assert {"account_validation", "reset_link", "data_change", "contact_form"} <= {kind["kind"] for kind in kinds}
    assert postier("kinds", "--schema", "reset_link").json == schema_for("reset_link")
    assert postier("kinds", "--schema", "nonsense").code == 2
    assert "reset_link" in postier("kinds").out


def test_the_doctor_finds_a_good_set_up_and_says_that_accepted_means_on_disk(postier: Run, store: Store) -> None:
    answer = postier("doctor", "--json")

    assert answer.code == 0
    checks = {check["name"]: check for check in answer.json["checks"]}
    assert (checks["durability"]["result"], checks["durability"]["words"]) == ("ok", "accepted means on disk")
    assert checks["redis"]["words"].startswith("valkey ")
    assert {name: check["result"] for name, check in checks.items() if check["result"] != "ok"} == {"workers": "warn"}


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("POSTIER_THREADS", "many", "settings"),
        ("POSTIER_SEAL_KEYS", "", "seal keys"),
        ("POSTIER_SEAL_KEYS", "k1:short", "seal keys"),
        ("POSTIER_ACCOUNTS_FILE", "/nowhere.toml", "accounts"),
        ("POSTIER_REDIS_URL", "redis://127.0.0.1:1", "redis"),
    ],
)
def test_the_doctor_names_what_is_wrong(
    postier: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, check: str
) -> None:
    monkeypatch.setenv(name, value)

    answer = postier("doctor", "--json")

    assert answer.code == 1
    (failed,) = [found for found in answer.json["checks"] if found["result"] == "fail"]
    assert failed["name"] == check
    assert failed["words"]


def test_a_new_seal_key_is_one_that_seals(postier: Run) -> None:
    answer = postier("doctor", "--new-seal-key")

    sealer = Sealer.from_text(answer.out.strip())
    assert sealer.open(sealer.seal(b"text", b"here"), b"here") == b"text"
    assert answer.out != postier("doctor", "--new-seal-key").out


@pytest.mark.parametrize("command", [("deliveries", "list"), ("failed", "list"), ("accounts", "list"), ("status", "x")])
def test_a_ledger_that_is_away_is_exit_4_in_one_line(
    postier: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("POSTIER_REDIS_URL", "redis://someone:hidden@127.0.0.1:1/0")

    answer = postier(*command)

    assert (answer.code, answer.out) == (4, "")
    assert answer.err.count("\n") == 1
    assert "127.0.0.1:1" in answer.err
    assert "hidden" not in answer.err


def test_a_wrong_setting_is_exit_2_in_one_line(postier: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTIER_LEASE_SECONDS", "0")

    answer = postier("deliveries", "list")

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("postier: POSTIER_LEASE_SECONDS: ")
    assert answer.err.count("\n") == 1


def test_every_command_documents_its_exit_codes_and_takes_json(postier: Run) -> None:
    def named(group: Any) -> Iterator[str]:
        for name, one in group.commands.items():
            yield from (f"{name} {below}" for below in named(one)) if hasattr(one, "commands") else (name,)

    commands = [*named(typer.main.get_command(app))]
    assert {"publish", "accounts export", "senders serve"} <= set(commands)
    for command in commands:
        answer = postier(*command.split(), "--help")

        assert answer.code == 0, command
        assert "Exit codes: 0 done" in answer.out, command
        assert "--json" in answer.out, command


HELPS = """
import contextlib, io, json, sys

from postier.console.main import main


def loaded(*commands):
    with contextlib.redirect_stdout(io.StringIO()):
        for command in commands:
            assert main([*command.split(), "--help"]) == 0, command
    return sorted(sys.modules)


print(json.dumps([loaded(""), loaded(*sys.argv[1:])]))
"""
BY_TYPER = {"typer", "annotated_doc", "shellingham"}
BY_PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
HEAVY = {"asyncio", "concurrent", "email", "http", "logging", "multiprocessing", "socket", "sqlite3", "ssl", "xml"}


def test_help_loads_nothing_but_the_commands_and_what_reads_their_arguments() -> None:
    groups = ["accounts", "audit", "deliveries", "failed", "metrics", "replays", "senders", "tenants", "unknown"]
    commands = ["publish", "work", "status", "top", "kinds", "doctor", "demo", "runbook", *groups, "accounts list"]

    done = subprocess.run([sys.executable, "-P", "-c", HELPS, *commands], check=True, capture_output=True, text=True)

    alone, all_of_them = map(set, json.loads(done.stdout))
    assert others(alone) <= BY_TYPER
    assert {name.partition(".")[0] for name in alone} & HEAVY == set()
    assert others(all_of_them) <= BY_TYPER | BY_PYDANTIC  # Typer asks pydantic what type an argument has
    ours = {name for name in all_of_them if name.startswith("postier.") and not name.startswith("postier.console")}
    assert ours == {"postier.schemas", "postier.schemas.errors"}


def others(modules: set[str]) -> set[str]:
    """The packages that are neither Python's nor ours; an installer puts modules with an underscore there."""
    tops = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    return {name for name in tops if name != "postier" and not name.startswith("_")}
