"""T27, T11, T24: whatever stands on a command line, commands answer with harmless words and an exit code of theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.attacks.kit import SENDER, Yard, bent
from tests.attacks.test_replies import harmful

HOSTILE = {
    "escape": "x\x1b[31m\x1b]0;owned\x07",
    "newline": "x\ny: z",
    "carriage": "x\rSENT",
    "nul-word": "x\\0",
    "c1": "x\x9b31m",
    "bidi": "x\u202etxt",
    "separator": "x\u2028y",
    "not-utf8": "x\udcff\udcfe",
    "surrogate": "x\ud800",
    "emoji": "\U0001f600",
    "glob": "*",
    "glob-class": "[a-z]*",
    "braces": "{yard}",
    "key": "key:school:x",
    "colons": "::::",
    "option": "--help-me",
    "dash": "-",
    "empty": "",
    "space": " ",
    "path": "../../../../etc/passwd",
    "long": "x" * 100_000,
    "long-wide": "é" * 50_000,
    "format": "%s%n{0}{event}",
    "rich": "[bold red]x[/bold red] [/]",
    "template": "{{ 7*7 }}",
    "shell": "$(touch /tmp/owned); `id`",
    "lua": "]] redis.call('FLUSHALL') --",
    "resp": "x\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "sql": "' OR 1=1 --",
    "number": "9" * 400,
    "negative": "-1",
    "json": '{"$gt": ""}',
    "nan": "nan",
    "infinity": "inf",
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "status": ("status", "HERE"),
    "status --json": ("status", "HERE", "--json"),
    "status --tenant": ("status", "arrival-1", "--tenant", "HERE"),
    "deliveries --account": ("deliveries", "list", "--account", "HERE"),
    "deliveries retry": ("deliveries", "retry", "HERE"),
    "deliveries retry --account": ("deliveries", "retry", "--account", "HERE"),
    "deliveries --kind": ("deliveries", "list", "--kind", "HERE"),
    "deliveries --tenant": ("deliveries", "list", "--tenant", "HERE"),
    "deliveries --state": ("deliveries", "list", "--state", "HERE"),
    "deliveries --since": ("deliveries", "list", "--since", "HERE"),
    "deliveries --limit": ("deliveries", "list", "--limit", "HERE"),
    "failed list": ("failed", "list", "--account", "HERE", "--json"),
    "failed show": ("failed", "show", "HERE"),
    "failed replay": ("failed", "replay", "HERE", "--yes"),
    "failed discard": ("failed", "discard", "HERE", "--yes"),
    "inbox list": ("inbox", "list", "--code", "HERE", "--json"),
    "inbox show": ("inbox", "show", "HERE"),
    "inbox retry": ("inbox", "retry", "HERE", "--yes"),
    "inbox discard": ("inbox", "discard", "HERE", "--yes"),
    "accounts show": ("accounts", "show", "HERE"),
    "accounts show --json": ("accounts", "show", "HERE", "--json"),
    "accounts pause": ("accounts", "pause", "HERE"),
    "accounts resume": ("accounts", "resume", "HERE"),
    "accounts check": ("accounts", "check", "HERE"),
    "accounts login": ("accounts", "login", "HERE"),
    "publish": ("publish", "HERE"),
    "publish --tenant": ("publish", "/dev/null", "--tenant", "HERE"),
    "kinds --schema": ("kinds", "--schema", "HERE"),
}


ALL_AT_ONCE = "x\x1b[31m\r\n\x9b\u202e\u2028\x07*{}[bold]%s"


def values_for(command: str) -> dict[str, str]:
    """Everything at once, and a few that differ from command to command: together the whole table, several times."""
    names, start = list(HOSTILE), list(COMMANDS).index(command) * 3
    chosen = [names[(start + step) % len(names)] for step in range(4)]
    return {"all at once": ALL_AT_ONCE} | {name: HOSTILE[name] for name in chosen}


def snapshot(yard: Yard) -> dict[bytes, bytes]:
    """The ledger but for what workers write all the time."""
    pulse = (
        "tick",
        "fresh:",
        "wake",
        "memory",
        "hold",
        "workers",
        "worker:",
        "checks:",
        "seen",
        "due:",
        "audit",
        "login",
        "dataset",
    )
    redis, prefix = yard.store.redis, yard.store.prefix
    keys = [key for key in sorted(redis.scan_iter(count=10_000)) if key.startswith(prefix.encode())]
    kept = [key for key in keys if not key.decode("utf-8", "replace").removeprefix(prefix).startswith(pulse)]
    found = {key: redis.dump(key) for key in kept}
    return {key: octets for key, octets in found.items() if octets is not None}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_argument_gets_a_harmless_answer(command: str, yard: Yard, tmp_path: Path) -> None:
    for name, value in values_for(command).items():
        if command == "publish" and value == "-":
            continue  # that is standard input
        arguments = [word.replace("HERE", value) for word in COMMANDS[command]]
        answer = yard.run(*arguments)
        where = f"{command} with {name}"
        assert answer.code in (0, 1, 2, 3, 4), where
        for text in (answer.out, answer.err):
            assert "Traceback" not in text, where
            assert not [line for line in text.splitlines() if list(harmful(line))], where
            assert text.count("\n") == len(text.splitlines()), where
            assert len(text) < 400_000, where
        assert "/root" not in answer.err, where


def test_hostile_arguments_change_nothing(yard: Yard) -> None:
    with yard.frozen():  # other tests' mail is still under way
        before = snapshot(yard)
        passing = {key for key in before if yard.store.redis.pttl(key) != -1}  # those may end by themselves
        for command in ("failed replay", "failed discard", "accounts pause", "accounts resume"):
            for value in ("*", "{yard}", ALL_AT_ONCE):
                yard.run(*(word.replace("HERE", value) for word in COMMANDS[command]))
        after = snapshot(yard)
    assert after.keys() - before.keys() == set()
    assert before.keys() - after.keys() <= passing
    assert {key for key in before.keys() & after.keys() if before[key] != after[key]} == set()


def test_a_file_of_envelopes_cannot_forge_answers(yard: Yard, tmp_path: Path) -> None:
    lines = [
        b'{"kind":"reset_link"}\r{"line":1,"id":"forged"}',
        b'{"k\x1b[31m":1}',
        json.dumps({"kind": "x\u202e\u001b[31m"}).encode(),
        json.dumps(bent("contact_form", {"data.x\n\x1b]0;y\x07": 1})).encode(),
        json.dumps(bent("contact_form", {"tenant": "sch\x1b[2Jool"})).encode(),
        b"\x1b[2J",
        b"x" * 300_000,
    ]
    path = tmp_path / "forged.jsonl"
    path.write_bytes(b"\n".join(lines))
    answer = yard.run("publish", str(path))
    assert answer.code == 3
    assert [line["line"] for line in answer.lines] == list(range(1, len(lines) + 1))
    assert all("error" in line for line in answer.lines)
    assert not [line for line in answer.out.splitlines() if list(harmful(line))]


def test_a_setting_that_is_wrong_is_named_and_not_repeated(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "POSTIER_REDIS_URL": "gopher://user:canary-word@127.0.0.1:1/",
        "POSTIER_SEAL_KEYS": "k1:canary-word",
        "POSTIER_NAMESPACE": "canary-word \x1b[31m*",
        "POSTIER_LEASE_SECONDS": "canary-word\x1b[31m",
        "POSTIER_LOG_LEVEL": "canary-word",
        "POSTIER_ACCOUNTS_FILE": "/nonexistent/\x1b[31m.toml",
        "POSTIER_EGRESS_ALLOW": "what is this, \x1b[31m",
    }.items():
        kept = yard.environment.get(name)
        yard.environment[name] = value
        try:
            for words in (("status", "x"), ("doctor",)):
                answer = yard.run(*words)
                text = answer.out + answer.err
                assert "canary-word" not in text, (name, words)
                assert "Traceback" not in text, (name, words)
                assert not [line for line in text.splitlines() if list(harmful(line))], (name, words)
        finally:
            if kept is None:
                del yard.environment[name]
            else:
                yard.environment[name] = kept


@pytest.mark.parametrize("value", ["{x", '{"a":' * 5000, '{"a":' + "9" * 5000 + "}"], ids=range(3))
def test_an_option_that_only_begins_like_a_table_is_refused_in_words(value: str, yard: Yard) -> None:
    """A brace that opened no JSON ended in an error nobody had foreseen."""
    options = ("--option", "host=mail.example.com", "--option", f"port={value}")
    answer = yard.run("accounts", "add", "odd", "--driver", "smtp", "--sender", SENDER, *options)
    assert answer.code == 1
    assert "accounts.odd.options.port: must be a whole number" in answer.out
    assert "should not happen" not in answer.err


@pytest.mark.parametrize(
    "file", ['{"accounts":' * 5000, '{"accounts":' + "9" * 5000 + "}", "x=" + "[" * 5000 + "]" * 5000]
)
def test_a_file_that_no_parser_bears_is_refused_in_words(file: str, yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "accounts").write_text(file)
    answer = yard.run("accounts", "import", str(tmp_path / "accounts"))
    assert answer.code == 2
    assert "should not happen" not in answer.err
