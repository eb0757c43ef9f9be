"""No failure without its page: every cause that a driver, a worker or a script can write is in the runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from postier.console.runbook import pages
from postier.console.words import ADVICE, CAUSES, runbook_page
from postier.ledger.groups import WAITING_FOR_A_PERSON
from postier.schemas import errors
from postier.schemas.errors import AccountError

ROOT = Path(__file__).parents[2]
_IN_SCRIPTS = re.compile(r"'cause', (?:r\[1\] == 'sending' and )?'(\w+)'(?: or '(\w+)')?")
_IN_WORKERS = re.compile(r'cause(?:=| = )"(\w+)"(?: if [^"]*else getattr\(error, "code", "(\w+)"\))?')
_CODES = re.compile(r'code="(unknown_kind|unknown_version|undecodable)"')


def written_causes() -> set[str]:
    """Every cause in the sources: the classes of errors, the scripts, the workers, what opening an event may say."""
    found = {"delivery_error", *errors.CAUSES.values(), *get_args(errors.NarrowCause)}
    for script in (ROOT / "ledger" / "scripts").glob("*.lua"):
        for line in script.read_text("utf-8").splitlines():
            if "HMGET" not in line and "HDEL" not in line:
                found |= {cause for match in _IN_SCRIPTS.findall(line) for cause in match if cause}
    for file in (ROOT / "workers").glob("*.py"):
        found |= {cause for match in _IN_WORKERS.findall(file.read_text("utf-8")) for cause in match if cause}
    for file in (ROOT / "schemas").rglob("*.py"):
        found |= set(_CODES.findall(file.read_text("utf-8")))
    return found


def test_every_cause_has_a_page_and_words() -> None:
    causes = written_causes()

    assert {
        "crashed",
        "worker_died",
        "superseded",
        "render",
        "undecodable",
        "unknown_kind",
        "withdrawn",
        "erased",
    } <= causes
    assert causes <= set(pages()), causes - set(pages())
    assert causes <= set(CAUSES), causes - set(CAUSES)


def test_a_failure_without_a_cause_leads_to_the_page_of_its_state() -> None:
    assert {runbook_page("", state) for state in ("expired", "suppressed")} <= set(pages())
    assert set(WAITING_FOR_A_PERSON) - {"failed", "unknown"} == {"expired", "suppressed"}


def test_every_page_says_what_it_means_what_to_do_and_by_which_commands() -> None:
    index = (ROOT / "console" / "runbook" / "README.md").read_text("utf-8")
    for name, text in pages().items():
        assert text.startswith("# "), name
        for part in ("**Meaning.**", "**Look at.**", "**Do.**", "```sh\npostier "):
            assert part in text, (name, part)
        assert f"({name}.md)" in index
    assert set(ADVICE) <= set(pages())


def test_pages_of_what_parks_an_account_replay_what_was_never_tried_too() -> None:
    """That ran out of time under the class `expired`: nobody replays it by the class of the account's failure."""
    parking = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, AccountError)]
    narrow = set(get_args(errors.NarrowCause)) - {"no_smtputf8"}
    causes = {errors.CAUSES[error] for error in parking if error in errors.CAUSES} | narrow | {"unreachable"}
    assert {"authentication_failed", "quota_exhausted", "certificate_expired", "oauth_unavailable"} <= causes
    for cause in causes:
        assert "--state expired --of-account ACCOUNT" in pages()[cause], cause


def test_every_command_in_the_runbook_exists() -> None:
    from typer.main import get_command

    from postier.console.main import app

    root = get_command(app)
    for name, text in {**pages(), "README": (ROOT / "console/runbook/README.md").read_text("utf-8")}.items():
        for line in re.findall(r"^postier (.*)$", text, re.MULTILINE):
            words = line.partition("#")[0].split()
            command = root
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            options = {option for parameter in command.params for option in parameter.opts}
            asked = {word for word in words if word.startswith("--")}
            assert asked <= options, (name, line)
            assert command is not root, (name, line)
