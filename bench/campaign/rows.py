"""All rows, by the part of the house that the fault hits."""

from __future__ import annotations

import importlib

MODULES = (
    "rows_workers",
    "rows_redis",
    "rows_redis_data",
    "rows_smtp",
    "rows_wire",
    "rows_login",
    "rows_load",
    "rows_house",
)


def load() -> None:
    """Register every row."""
    for name in MODULES:
        importlib.import_module(f"campaign.{name}")
