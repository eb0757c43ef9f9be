"""Colours that can be read: contrast as WCAG 2.2 defines it (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)."""

from __future__ import annotations

READABLE = 4.5  # WCAG 2.2, success criterion 1.4.3, level AA

_Rgb = tuple[int, int, int]


def _rgb(colour: str) -> _Rgb:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in _rgb(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two `#rrggbb` colours, from 1 (equal) to 21 (black on white)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(background: str) -> str:
    """Black or white, whichever reads better on the background."""
    return max("#ffffff", "#000000", key=lambda ink: contrast(ink, background))


def readable_on(background: str, colour: str) -> str:
    """`colour`, moved towards black or white only as far as it takes to be readable on the background."""
    goal = _rgb(ink_on(background))
    for step in range(21):
        mixed = [round(value + (end - value) * step / 20) for value, end in zip(_rgb(colour), goal, strict=True)]
        candidate = "#{:02x}{:02x}{:02x}".format(*mixed)
        if contrast(candidate, background) >= READABLE:
            return candidate
    return ink_on(background)
