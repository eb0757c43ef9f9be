"""Accounts as a worker knows them: with their driver's limits where they set none."""

from __future__ import annotations

from typing import Any

import pytest

from postier.schemas.account import Account
from postier.workers.route import with_default_limits


def account(driver: str, options: dict[str, Any], **limits: Any) -> Account:
    return Account.model_validate(
        {
            "name": "main",
            "driver": driver,
            "sender": {"address": "noreply@example.org"},
            "options": options,
            "limits": limits,
        }
    )


def test_a_mailbox_at_microsoft_starts_with_its_published_limits() -> None:
    limits = with_default_limits(account("microsoft", {})).limits
    assert (limits.per_minute, limits.per_day, limits.counts, limits.max_connections) == (30, 10_000, "recipients", 4)


def test_what_an_account_sets_itself_goes_before_its_drivers_limits() -> None:
    limits = with_default_limits(account("provider", {"preset": "scaleway_tem"}, max_recipients=5, per_second=3)).limits
    assert (limits.max_recipients, limits.per_second) == (5, 3)


@pytest.mark.parametrize(
    ("preset", "field", "value"),
    [("scaleway_tem", "max_recipients", 10), ("brevo", "per_day", 300), ("gmail", "per_day", 500)],
)
def test_a_preset_brings_its_smallest_plans_limits(preset: str, field: str, value: int) -> None:
    assert getattr(with_default_limits(account("provider", {"preset": preset})).limits, field) == value


def test_a_preset_that_is_unknown_leaves_the_account_as_it_is() -> None:
    unknown = account("provider", {"preset": "nobody"})
    assert with_default_limits(unknown) == unknown
