"""A tenant and one complete envelope per kind, as JSON objects that tests bend."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from postier.schemas.account import Registry
from postier.schemas.edge import wrap
from postier.schemas.events import KINDS

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry.model_validate(
        {
            "default_account": "main",
            "accounts": {
                "main": {"driver": "smtp", "sender": {"address": "post@school.example"}},
                "shop": {"driver": "smtp", "tenant": "shop", "sender": {"address": "post@shop.example"}},
            },
            "tenants": {
                "school": {
                    "allowed_hosts": ["school.example", "*.school.example", "pages.example/school"],
                    "forms": {"contact": {"recipients": ["office@school.example", "OFFICE@school.example"]}},
                },
                "shop": {"allowed_hosts": ["shop.example"]},
            },
        }
    )


@pytest.fixture(scope="session")
def examples() -> dict[str, str]:
    return {
        kind: wrap(event.example(NOW.replace(year=2090)), tenant="school", event_id=f"example-{kind}").model_dump_json()
        for kind, event in KINDS.items()
    }


@pytest.fixture
def bent(examples: dict[str, str]) -> Callable[[str, str, Any], dict[str, Any]]:
    """The example of a kind with one value, given by its dotted path, replaced or added."""

    def bend(kind: str, path: str, value: Any) -> dict[str, Any]:
        envelope = json.loads(examples[kind])
        *way, last = path.split(".")
        at: Any = envelope
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        at[int(last) if isinstance(at, list) else last] = copy.deepcopy(value)
        assert isinstance(envelope, dict)
        return envelope

    return bend
