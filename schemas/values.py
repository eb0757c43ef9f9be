"""`value`: a frozen dataclass for what is made anew for every mail, at a third of its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    # Whoever changes a field is told by the type checker.
    from dataclasses import dataclass as value
else:

    def value(*, frozen: bool, slots: bool) -> type:
        """As `dataclass`, compared and hashed alike, without the detour that freezing makes of setting a field."""
        return dataclass(slots=slots, unsafe_hash=frozen)
