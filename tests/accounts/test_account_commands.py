"""`postier accounts …` and `postier tenants …` on a real ledger, with a real mail server to try accounts at."""

from __future__ import annotations

import io
import json
import os
import pty
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from postier.ledger.store import Store
from tests.accounts.kit import SECRET, Mail
from tests.conftest import until
from tests.console.helpers import Answer, Run

UNREACHED = ("--driver", "smtp", "--sender", "office@school.example", "-o", "host=mail.school.example")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """What comes from standard input."""

    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return give


def steps(answer: Answer) -> dict[str, bool]:
    return {line["step"]: line["ok"] for line in answer.lines if "step" in line}


def test_an_account_is_saved_after_its_check_passed_and_its_secret_is_never_shown(
    postier: Run, mail: Mail, typed, store: Store
) -> None:
    typed("open sesame\n")
    answer = postier(
        "accounts", "add", "office", *mail.flags("--secret-stdin", "password", "--to", "me@example.org", "--json")
    )

    assert answer.code == 0, answer.out + answer.err
    assert all(steps(answer).values())
    assert list(steps(answer)) == ["resolve", "connect", "tls", "greeting", "login", "sender", "test_mail"]
    assert answer.lines[-1] == {"account": "office", "saved": True, "version": 1, "untested": False}
    (came,) = mail.folder.glob("*.eml")
    assert "To: me@example.org" in came.read_text()
    shown = postier("accounts", "show", "office", "--json")
    assert shown.json["options"]["password"] == "••••••"
    assert (shown.json["kept_in"], shown.json["version"]) == ("ledger", 1)
    for command in (("accounts", "show", "office"), ("accounts", "export"), ("accounts", "history", "office")):
        told = postier(*command)
        assert told.code == 0
        assert "open sesame" not in told.out
        assert "sealed:" not in told.out
    assert steps(postier("accounts", "check", "office", "--json")) == dict.fromkeys(
        ("resolve", "connect", "tls", "greeting", "login", "sender"), True
    )


def test_an_account_whose_check_fails_is_not_saved_unless_said_so(postier: Run, mail: Mail, typed) -> None:
    typed("wrong\n")
    refused = postier("accounts", "add", "office", *mail.flags("--secret-stdin", "password"))

    assert refused.code == 1
    assert "535 5.7.8" in refused.out
    assert "is not saved" in refused.err
    assert postier("accounts", "show", "office").code == 1
    typed("wrong\n")
    assert postier("accounts", "add", "office", *mail.flags("--secret-stdin", "password", "--untested")).code == 0
    assert postier("accounts", "show", "office", "--json").json["untested"] is True


def test_an_edit_keeps_what_it_does_not_name_and_checks_only_a_new_way_of_sending(
    postier: Run, mail: Mail, typed
) -> None:
    typed("open sesame\n")
    postier("accounts", "add", "office", *mail.flags("--secret-stdin", "password"))

    slower = postier("accounts", "edit", "office", "--limit", "per_minute=30", "--json")
    assert (slower.code, steps(slower)) == (0, {})
    assert slower.json["version"] == 2
    assert postier("accounts", "edit", "office", "-o", "timeout_ms=5000", "--json").code == 0
    shown = postier("accounts", "show", "office", "--json").json
    assert (shown["limits"]["per_minute"], shown["options"]["timeout_ms"]) == (30, "5000")
    typed("wrong\n")
    assert postier("accounts", "edit", "office", "--secret-stdin", "password").code == 1
    assert steps(postier("accounts", "check", "office", "--json"))["login"]


def test_the_second_editor_is_told_with_exit_1(postier: Run) -> None:
    assert postier("accounts", "add", "office", *UNREACHED, "--untested").code == 0
    assert postier("accounts", "edit", "office", "--locale", "fr", "--version", "1").code == 0

    late = postier("accounts", "edit", "office", "--locale", "en", "--version", "1")

    assert late.code == 1
    assert "at version 2, you saw 1" in late.err


def test_unsaved_values_are_tried_and_nothing_is_kept(postier: Run, mail: Mail, typed) -> None:
    typed("open sesame\n")
    answer = postier("accounts", "check", "office", *mail.flags("--secret-stdin", "password", "--json"))

    assert answer.code == 0
    assert steps(answer)["login"]
    assert postier("accounts", "list", "--json").json["accounts"] == []


def test_a_check_is_refused_after_five_within_a_minute(postier: Run, mail: Mail, typed) -> None:
    for _ in range(5):
        typed("open sesame\n")
        assert postier("accounts", "check", "office", *mail.flags("--secret-stdin", "password")).code == 0
    before = mail.port
    typed("open sesame\n")
    sixth = postier("accounts", "check", "office", *mail.flags("--secret-stdin", "password"))

    assert (sixth.code, sixth.out, before) == (1, "", mail.port)
    assert "five times within a minute" in sixth.err


def test_open_and_closed_ports_inside_answer_in_the_same_words_without_a_connection(
    postier: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTIER_EGRESS_ALLOW")
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = listening.getsockname()[1], closed.getsockname()[1]
        closed.close()
        said = []
        for port in ports:
            answer = postier(
                "accounts", "check", "spy", "--driver", "smtp", "--sender", "a@b.example", "-o", "host=127.0.0.1",
                "-o", f"port={port}", "-o", "allow_hosts=127.0.0.1", "--json",
            )  # fmt: skip
            (step,) = answer.lines
            said.append((step["step"], step["ok"], step["words"], step["advice"], step["details"]))
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()

    assert said[0] == said[1]
    assert said[0][:2] == ("resolve", False)


def test_a_plain_secret_on_the_command_line_is_refused_with_the_ways_that_are_safe(postier: Run) -> None:
    answer = postier("accounts", "add", "office", *UNREACHED, "-o", f"password={SECRET}")

    assert answer.code == 2
    assert "--secret password" in answer.err
    assert SECRET not in answer.err


def test_a_secret_is_asked_for_without_echo(environment: dict[str, str]) -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "postier.console", "accounts", "add", "office", *UNREACHED, "-o", "username=me",
               "--secret", "password", "--untested"]  # fmt: skip
    asking = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, start_new_session=True, close_fds=True)
    os.close(child)
    shown = b""
    # What is typed before the echo is off is thrown away.
    until(lambda: not termios.tcgetattr(parent)[3] & termios.ECHO, what="an end of the echo")
    os.write(parent, SECRET.encode() + b"\n")
    try:
        while more := os.read(parent, 1024):
            shown += more
    except OSError:  # Linux says so at the end of the other side
        pass
    os.close(parent)

    assert asking.wait(30) == 0, shown
    assert SECRET.encode() not in shown
    assert b"is saved (version 1)" in shown


def test_an_account_comes_from_a_toml_file_a_json_file_or_standard_input(postier: Run, tmp_path: Path, typed) -> None:
    (tmp_path / "one.toml").write_text(
        'driver = "smtp"\nsender = { address = "a@school.example" }\n[options]\nhost = "mail.school.example"\n'
    )
    row = {"driver": "smtp", "sender": {"address": "b@school.example"}, "options": {"host": "mail.school.example"}}
    (tmp_path / "many.json").write_text(json.dumps({"accounts": {"two": row}}))

    assert postier("accounts", "add", "one", "--from", str(tmp_path / "one.toml"), "--untested").code == 0
    assert postier("accounts", "add", "two", "--from", str(tmp_path / "many.json"), "--untested").code == 0
    typed(json.dumps(row))
    assert postier("accounts", "add", "three", "--from", "-", "--locale", "fr", "--untested").code == 0

    shown = postier("accounts", "list", "--json").json["accounts"]
    assert [(one["name"], one["sender"]["address"]) for one in shown] == [
        ("one", "a@school.example"), ("three", "b@school.example"), ("two", "b@school.example"),
    ]  # fmt: skip


def test_defaults_and_rules_route_a_tenant_s_mail(postier: Run) -> None:
    postier("tenants", "set", "school", "--allowed-host", "school.example", "--form", "help=desk@school.example")
    for name in ("main", "urgent"):
        assert postier("accounts", "add", name, *UNREACHED, "--untested").code == 0
    assert postier("accounts", "default", "main").code == 0
    assert postier("accounts", "default", "urgent", "--tenant", "school").code == 0
    assert postier("accounts", "rules", "school", "reset_link=main", "data_change=urgent").code == 0
    assert postier("accounts", "rules", "school", "data_change=").code == 0

    assert postier("accounts", "rules", "school", "--json").json["rules"] == {"reset_link": "main"}
    assert postier("accounts", "default", "--json").json["default"] == "main"
    shown = postier("tenants", "show", "school", "--json").json
    assert shown["default_account"] == "urgent"
    assert shown["forms"]["help"]["recipients"] == ["desk@school.example"]
    refused = postier("accounts", "remove", "main")
    assert refused.code == 2
    assert "no account is named 'main'" in refused.err
    assert postier("accounts", "rules", "school", "no_such_kind=main").code == 2
    assert postier("accounts", "default", "nobody").code == 2


def test_a_tenant_of_the_ledger_has_its_own_time_of_retention_until_it_is_taken_back(postier: Run) -> None:
    for days, kept in (("90", 90), ("0", None)):
        assert postier("tenants", "set", "school", "--keep-days", days).code == 0
        assert postier("tenants", "show", "school", "--json").json["keep_days"] == kept


def test_publishers_route_by_a_new_account_at_once(postier: Run, tmp_path: Path) -> None:
    from tests.console.helpers import publish, reset_link

    postier("tenants", "set", "school", "--allowed-host", "school.example")
    postier("accounts", "add", "main", *UNREACHED, "--untested")
    postier("accounts", "default", "main")

    (identity,) = publish(postier, tmp_path, reset_link())

    assert postier("status", identity, "--json").json["account"] == "main"


def test_export_and_import_carry_accounts_and_tenants_to_another_ledger(
    postier: Run, tmp_path: Path, typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    postier("tenants", "set", "school", "--allowed-host", "school.example")
    typed(SECRET + "\n")
    flags = (*UNREACHED, "-o", "username=me", "--secret-stdin", "password", "--tenant", "school", "--untested")
    assert postier("accounts", "add", "office", *flags).code == 0
    for name, more in (("bare.json", ()), ("sealed.json", ("--sealed",))):
        assert postier("accounts", "export", str(tmp_path / name), *more).code == 0
        assert SECRET not in (tmp_path / name).read_text()
    assert postier("accounts", "export", str(tmp_path / "bare.json")).code == 2

    assert postier("accounts", "import", str(tmp_path / "bare.json"), "--untested").code == 0
    assert postier("accounts", "show", "office", "--json").json["options"]["password"] == "••••••"

    monkeypatch.setenv("POSTIER_NAMESPACE", os.environ["POSTIER_NAMESPACE"] + "-other")
    done = postier("accounts", "import", str(tmp_path / "sealed.json"), "--untested", "--json")
    assert done.json == {"accounts": ["office"], "tenants": ["school"], "saved": True}
    assert postier("accounts", "show", "office", "--json").json["options"]["password"] == "••••••"


def test_an_import_with_one_wrong_account_saves_nothing(postier: Run, tmp_path: Path) -> None:
    good = {"driver": "smtp", "sender": {"address": "a@school.example"}, "options": {"host": "mail.school.example"}}
    wrong = good | {"tenant": "nobody"}
    (tmp_path / "given.json").write_text(json.dumps({"accounts": {"good": good, "wrong": wrong}}))

    answer = postier("accounts", "import", str(tmp_path / "given.json"), "--untested")

    assert answer.code == 2
    assert "accounts.wrong.tenant: no tenant is named 'nobody'" in answer.err
    assert postier("accounts", "list", "--json").json["accounts"] == []


def test_accounts_of_the_file_cannot_be_changed_by_command(
    postier: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text('[accounts.office]\ndriver = "null"\nsender = { address = "a@school.example" }\n')
    monkeypatch.setenv("POSTIER_ACCOUNTS_FILE", str(file))

    for command in (
        ("add", "office", *UNREACHED, "--untested"),
        ("edit", "office", "--locale", "fr"),
        ("remove", "office"),
    ):
        answer = postier("accounts", *command)
        assert answer.code == 2
        assert "is written in the accounts file: it is read-only here" in answer.err


def test_every_preset_is_listed_with_what_it_needs(postier: Run) -> None:
    rows = {row["preset"]: row for row in postier("accounts", "presets", "--json").json["presets"]}

    assert len(rows) == 31
    assert rows["sendgrid"]["needs"] == ["password"]
    assert rows["ses"]["needs"] == ["region", "username", "password"]
    assert all(row["needs"] and row["source"].startswith("https://") for row in rows.values())
    assert len(postier("accounts", "presets").out.splitlines()) == 32


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--driver", "smpt", "--sender", "a@b.example"), "driver: no driver is named 'smpt'; did you mean smtp?"),
        (("--driver", "smtp"), "accounts.x.sender: missing: set it"),
        (("--sender", "a@b.example"), "accounts.x.driver: missing: set it"),
        (("--driver", "smtp", "--sender", "a b.example"), "accounts.x.sender.address: an address reads name@domain"),
        (("--driver", "smtp", "--sender", "a@b.example"), "accounts.x.options.host: missing: set it"),
        ((*UNREACHED, "-o", "prot=587"), "accounts.x.options.prot: there is no such setting; did you mean port?"),
        ((*UNREACHED, "-o", "port=many"), "accounts.x.options.port: must be a whole number, like 587"),
        ((*UNREACHED, "-o", "security=ssl"), "accounts.x.options.security: must be one of 'starttls', 'tls' or 'none'"),
        ((*UNREACHED, "-o", "password=env:NOT_SET"), "accounts.x.options.password: the environment variable NOT_SET"),
        ((*UNREACHED, "--limit", "per_secnd=3"), "accounts.x.limits.per_secnd: there is no such setting; did you mean"),
        ((*UNREACHED, "--limit", "per_second=-1"), "accounts.x.limits.per_second: must be greater than 0"),
        ((*UNREACHED, "--locale", "de"), "accounts.x.locale: must be one of 'en' or 'fr'"),
        ((*UNREACHED, "--tenant", "nobody"), "accounts.x.tenant: no tenant is named 'nobody'"),
        ((*UNREACHED, "--fallback", "nothing"), "accounts.x.fallback: no account is named 'nothing'"),
        (("--preset", "sendgird", "--sender", "a@b.example"), "no provider is named 'sendgird'; did you mean sendgrid"),
        (("--preset", "ses", "--sender", "a@b.example"), "region: ses needs one, for example eu-west-1"),
        (("--preset", "gmail", "--sender", "a@b.example"), "username: gmail needs one: full email address"),
        (("--driver", "branded", "--sender", "a@b.example"), "accounts.x.options.through: name one, or set a default"),
    ],
)
def test_a_wrong_or_partial_account_is_one_line_with_field_problem_and_fix(
    postier: Run, flags: tuple[str, ...], words: str
) -> None:
    answer = postier("accounts", "add", "x", *flags, "--untested")

    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert words in answer.err
    assert postier("accounts", "list", "--json").json["accounts"] == []
