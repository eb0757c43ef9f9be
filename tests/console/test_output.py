"""Text on its way to a terminal, and times on their way in."""

import json

import pytest

from postier.console.output import as_json, parse_moment, safe, span


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("à 10\u00a0h – Zoë", "à 10 h – Zoë"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\x9b2J\u2028", "\\x9b2J\\u2028"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_text_is_shown_on_one_line_and_cannot_act(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert safe(text).isprintable()


def test_json_for_a_terminal_says_the_same_in_harmless_characters() -> None:
    value = {"words": "\x1b]0;x\x07 é \u202e\x9b\u2028 \U000e0001"}

    text = as_json(value)

    assert text.isprintable()
    assert json.loads(text) == value
    assert "é" in text


def test_times_are_read_as_iso_or_as_an_age() -> None:
    assert parse_moment("2h", 10_000) == 10_000 - 7200
    assert parse_moment("1.5 min", 100) == 10
    assert parse_moment("1970-01-01T00:01:00Z", 0) == 60
    assert parse_moment("1970-01-01T01:01:00+01:00", 0) == 60
    assert parse_moment("1970-01-02", 0) == 86_400
    with pytest.raises(ValueError, match="2h"):
        parse_moment("soon", 0)


@pytest.mark.parametrize(
    "text", ["9" * 400 + "d", "9" * 300 + "s", "0001-01-01T00:00:00+23:59", "0001-01-01", "1969-12-31T23:59Z", "99999d"]
)
def test_a_time_before_all_records_is_the_first_second(text: str) -> None:
    """Ages beyond measure ended in an OverflowError, and times before 1970 in Redis' refusal of an id below nought."""
    assert parse_moment(text, 1_000_000_000) == 0.0


def test_lengths_of_time_are_rounded_for_people() -> None:
    assert [span(seconds) for seconds in (0.25, 9.94, 45, 150, 7300, 200_000)] == [
        "0.2 s", "9.9 s", "45 s", "2 min", "2 h", "2 d",
    ]  # fmt: skip
