"""What one look of the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its result, what was found, and one sentence of what to do."""

    name: str
    result: Level
    words: str
    advice: str = ""
