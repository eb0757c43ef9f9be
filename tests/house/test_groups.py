"""Tests that share something dear stay in one test process."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("a group")
def test_a_group_of_tests_is_known_to_what_spreads_them(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("tests are spread otherwise")
    assert request.node.nodeid.endswith("@a group"), "pytest and pytest-xdist do not fit together"
