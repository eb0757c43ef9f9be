"""`postier publish`: one answer a line, the same answer for the same file, bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postier.console.publish_lines import batches
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from tests.console.helpers import Run, reset_link, write_lines

POSTIER = (sys.executable, "-P", "-m", "postier.console")


def test_each_line_gets_its_answer_in_order_and_refusals_make_exit_3(
    postier: Run, store: Store, tmp_path: Path
) -> None:
    elsewhere = reset_link()
    elsewhere["data"]["action_url"] = "https://evil.example/"
    file = write_lines(
        tmp_path / "events.jsonl", reset_link(id="one"), "", "  ", elsewhere, "{no json", reset_link("last@example.org")
    )

    answer = postier("publish", file)

    assert answer.code == 3
    accepted, host, broken, last = answer.lines
    assert accepted == {"line": 1, "id": "one", "deliveries": accepted["deliveries"], "duplicate": False}
    assert len(accepted["deliveries"]) == 1
    assert (host["line"], host["error"]["code"], host["error"]["field"]) == (4, "link_not_allowed", "data.action_url")
    assert (broken["line"], broken["error"]["code"]) == (5, "undecodable")
    assert last["line"] == 6
    assert "evil" not in answer.out


def test_the_same_file_again_answers_the_same_ids_and_adds_nothing(postier: Run, store: Store, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.jsonl", reset_link(id="one"), reset_link("ann@example.org"))
    first = postier("publish", file)

    again = postier("publish", file)

    assert (first.code, again.code) == (0, 0)
    assert [line["duplicate"] for line in again.lines] == [True, True]
    assert [line | {"duplicate": False} for line in again.lines] == first.lines
    assert Queries(store).counts()["waiting"] == 2


def test_the_same_id_with_other_content_is_refused(postier: Run, store: Store, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.jsonl", reset_link(id="one"), reset_link("ann@example.org", id="one"))

    answer = postier("publish", file)

    assert answer.code == 3
    assert answer.lines[1]["error"]["code"] == "idempotency_conflict"


def test_a_ledger_that_no_worker_has_told_of_tenants_says_so(postier: Run, tmp_path: Path) -> None:
    answer = postier("publish", write_lines(tmp_path / "events.jsonl", reset_link()))

    assert answer.code == 3
    assert "workers tell of those of their accounts file when they start" in answer.lines[0]["error"]["reason"]


def test_tenant_fills_a_missing_one_and_refuses_another(postier: Run, store: Store, tmp_path: Path) -> None:
    nameless = reset_link()
    del nameless["tenant"]
    file = write_lines(tmp_path / "events.jsonl", nameless, reset_link(tenant="other"))

    answer = postier("publish", "--tenant", "school", file)

    assert "id" in answer.lines[0]
    assert answer.lines[1]["error"]["code"] == "wrong_tenant"


def test_many_lines_from_a_pipe_are_answered_one_by_one(environment: dict[str, str], store: Store) -> None:
    lines = "".join(json.dumps(reset_link(f"user{number}@example.org")) + "\n" for number in range(450))

    done = subprocess.run([*POSTIER, "publish"], input=lines, capture_output=True, text=True, check=True, timeout=60)

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, 451))
    assert Queries(store).counts()["waiting"] == 450


def test_a_slow_writer_is_answered_before_the_pipe_ends(environment: dict[str, str], store: Store) -> None:
    with subprocess.Popen(
        [*POSTIER, "publish", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdin is not None
        assert command.stdout is not None
        command.stdin.write(json.dumps(reset_link()) + "\n")
        command.stdin.flush()

        assert json.loads(command.stdout.readline())["line"] == 1

        command.stdin.close()
        assert command.wait(timeout=30) == 0


def test_a_line_without_end_is_refused_without_being_kept_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_bytes(b"x" * 3_000_000 + b"\n{}\n" + b"y" * 300_000)
    descriptor = os.open(file, os.O_RDONLY)

    lines = [line for batch in batches(descriptor) for line in batch]

    os.close(descriptor)
    assert lines == [(1, None), (2, b"{}"), (3, None)]


def test_a_file_without_a_last_line_end_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "short.jsonl"
    file.write_bytes(b"{}\r\n\n{}")
    descriptor = os.open(file, os.O_RDONLY)

    lines = [line for batch in batches(descriptor, 1) for line in batch]

    os.close(descriptor)
    assert lines == [(1, b"{}\r"), (3, b"{}")]


def test_without_a_ledger_each_line_says_so_and_the_exit_code_is_4(
    postier: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTIER_REDIS_URL", "redis://someone:hidden@127.0.0.1:1/0")
    file = write_lines(tmp_path / "events.jsonl", reset_link(), "{no json")

    answer = postier("publish", "--wait", "0", file)

    assert answer.code == 4
    assert [line["error"]["code"] for line in answer.lines] == ["ledger_unavailable", "ledger_unavailable"]
    assert "Publishing it again is safe" in answer.err
    assert "hidden" not in answer.out + answer.err


def test_a_missing_file_is_a_usage_error_in_one_line(postier: Run) -> None:
    answer = postier("publish", "nowhere.jsonl")

    assert answer.code == 2
    assert answer.err == "postier: cannot read nowhere.jsonl: No such file or directory\n"
