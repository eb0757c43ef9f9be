"""The committed JSON Schemas say what the models say, and fit what the edge reads and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from postier.schemas import json_schema
from postier.schemas.errors import InvalidEvent
from postier.schemas.events import KINDS


def test_the_committed_schemas_are_those_the_models_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert json_schema.main(["--check"]) == 0, capsys.readouterr().out


def test_a_drift_is_shown_as_a_diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(json_schema, "FOLDER", tmp_path)
    assert json_schema.main([]) == 0
    assert json_schema.main(["--check"]) == 0
    changed = tmp_path / "reset_link.json"
    changed.write_text(changed.read_text("utf-8").replace('"device"', '"gadget"'), "utf-8")
    (tmp_path / "gone.json").write_text("{}\n")
    assert json_schema.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert '+        "device": {' in said
    assert "committed/gone.json" in said
    assert json_schema.main([]) == 0
    assert json_schema.main(["--check"]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_fits_its_schema(kind: str, examples: dict[str, str]) -> None:
    schema = json_schema.schema_for(kind)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(json.loads(examples[kind]))
    for other in KINDS.keys() - {kind}:
        assert not validator.is_valid(json.loads(examples[other]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.bcc", "x"),
        ("data.recipient", 1),
        ("data.recipient.phone", "1"),
        ("data.expires_at", 5),
        ("data.action_url", "http://school.example"),
        ("schema_version", 2),
        ("tenant", "A B"),
        ("other", 1),
    ],
)
def test_what_the_edge_refuses_by_shape_the_schema_refuses_too(
    path: str, value: Any, bent: Callable[[str, str, Any], dict[str, Any]]
) -> None:
    assert not Draft202012Validator(json_schema.schema_for("reset_link")).is_valid(bent("reset_link", path, value))


def test_a_recipient_may_be_an_address_alone(bent: Callable[[str, str, Any], dict[str, Any]]) -> None:
    Draft202012Validator(json_schema.schema_for("reset_link")).validate(
        bent("reset_link", "data.recipient", "a@example.org")
    )


def test_there_is_no_schema_for_an_unknown_kind() -> None:
    with pytest.raises(InvalidEvent):
        json_schema.schema_for("nothing")
