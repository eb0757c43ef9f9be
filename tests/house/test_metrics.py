"""Every metric is explained in `docs/metrics.md`, and the alerts ask for nothing that is not exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from postier.console.exposition import METRICS
from postier.console.words import CAUSES
from tests.house.test_documented_commands import named

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text("utf-8")
ALERTS = (ROOT / "deploy" / "alerts.yaml").read_text("utf-8")
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]]
KNOWN = {one.name: set(one.labels) for one in METRICS}
DELIVERIES = "waiting scheduled leased sent failed expired unknown discarded suppressed"
STATES = {
    "postier_deliveries": set(DELIVERIES.split()),
    "postier_account_state": {"ready", "slowed", "probing", "parked", "paused", "needs_login", "unseen"},
    "postier_waiting_for_a_person": {"failed", "unknown", "expired", "suppressed"},
}
VALUES = {"priority": {"urgent", "bulk"}, "window": {"hour", "day"}, "cause": {*CAUSES, "other"}}


def wrong_in(expression: str) -> list[str]:
    """What an expression asks for that is not exported, or asks in vain."""
    wrong = []
    for name, selector in re.findall(r"\b(postier_\w+)(?:\{([^}]*)\})?", expression):
        if name not in KNOWN:
            wrong.append(f"no metric {name}")
            continue
        for label, _, text in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            if label not in KNOWN[name]:
                wrong.append(f"{name} has no label {label}")
                continue
            asked = set(text.split("|"))
            if strange := asked - (STATES[name] if label == "state" else VALUES.get(label, asked)):
                wrong.append(f"{name} never has {label} {', '.join(sorted(strange))}")
    for labels in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        told = set().union(*(KNOWN[name] for name in re.findall(r"\bpostier_\w+", expression) if name in KNOWN))
        wrong += [f"no label {label}" for label in re.findall(r"\w+", labels) if label not in told]
    if expression.count("(") != expression.count(")"):
        wrong.append("a bracket is missing")
    return wrong


def test_every_metric_is_explained_and_nothing_else() -> None:
    table = re.findall(r"^\| `(\w+)` \| (gauge|counter) \| \S[^|]* \| ?([a-z, ]*) \| \S", DOCUMENT, re.M)

    explained = [(name, kind, tuple(filter(None, labels.split(", ")))) for name, kind, labels in table]
    assert explained == [
        (one.name, "counter" if one.name.endswith("_total") else "gauge", one.labels) for one in METRICS
    ]


def test_the_document_asks_for_what_is_exported() -> None:
    for name in re.findall(r"\bpostier_\w+", DOCUMENT):
        assert name in KNOWN
    (queries,) = re.findall(r"^```promql\n(.*?)^```", DOCUMENT, re.M | re.S)
    assert [wrong_in(line) for line in queries.splitlines()] == [[], []]


def test_the_document_names_every_state_of_an_account_and_a_delivery() -> None:
    for metric, states in STATES.items():
        row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{metric}` "))
        assert {state for state in states if f"`{state}`" in row} == states


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_exported_and_says_what_to_run(rule: dict[str, Any]) -> None:
    assert wrong_in(rule["expr"]) == []
    assert "postier_" in rule["expr"]
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "run"}
    assert list(named(rule["annotations"]["run"])), "that each command exists is test_documented_commands' matter"
    used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    kept = re.findall(r"\bby\s*\(([^)]*)\)", rule["expr"])
    assert used <= set(re.findall(r"\w+", " ".join(kept)))


def test_every_alert_has_a_name_of_its_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ('max by (account) (postier_account_state{state="parked"}) == 1', []),
        ("postier_downs > 0", ["no metric postier_downs"]),
        ('postier_deliveries{account="x"} > 0', ["postier_deliveries has no label account"]),
        ('postier_deliveries{state=~"failed|lost"} > 0', ["postier_deliveries never has state lost"]),
        ("sum by (tenant) (postier_account_waiting) > 0", ["no label tenant"]),
        ("sum(postier_account_waiting > 0", ["a bracket is missing"]),
    ],
)
def test_what_is_wrong_in_an_expression_is_found(expression: str, wrong: list[str]) -> None:
    assert wrong_in(expression) == wrong
