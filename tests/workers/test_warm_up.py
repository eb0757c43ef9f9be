"""Workers start whatever one kind or template does."""

from __future__ import annotations

from typing import Any

import pytest

from postier.workers.render import Renderer
from postier.workers.route import Roster
from tests.ledger.kit import registry


def test_a_template_that_breaks_in_an_unknown_way_keeps_no_worker_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def fail(self: Renderer, event: Any, **_: Any) -> None:
        tried.append(event.kind)
        raise KeyError("a template of a third party")

    monkeypatch.setattr(Renderer, "render", fail)
    accounts = registry()
    host = {"host": "smtp.example.org", "auth": "none"}
    accounts.accounts["main"].options.update(host)
    roster = Roster(lambda: accounts)
    roster.refresh()
    roster.warm_up()
    roster.close()
    assert tried
