"""Reply text made ready for the rules, and the form of a rule: one precompiled alternation per meaning.

Rules are written for text that `normalise` has prepared: lower case, Latin accents folded, addresses replaced by the
word "addr", white space reduced. Gaps inside a rule are bounded and possessive, so that every search stays linear in
the length of the text, whoever wrote it.
"""

import re
from re import Pattern

EXAMINED_CHARACTERS = 2000

_ADDRESS = re.compile(r"<?[^\s<>@\[\]()\"']{1,64}@[^\s<>@\[\]()\"',;]{1,255}>?")
_URL = re.compile(r"<?\bhttps?://\S+")
_CONTINUATION = re.compile(r"(?:[\r\n]|\\[rn])+\s*(?:[2-5]\d\d[ -])?\s*(?:[245]\.\d{1,3}\.\d{1,3}\s)?")
_SPACES = re.compile(r"\s+")
_FOLDED = str.maketrans("àáâãäåąçćèéêëęìíîïłñńòóôõöśùúûüýÿœßźż’", "aaaaaaacceeeeeiiiilnnooooosuuuuyyoszz'")


def words(*alternatives: str) -> Pattern[str]:
    """Compile one rule from its alternatives."""
    return re.compile("|".join(alternatives))


def normalise(text: str) -> tuple[str, str]:
    """Return the first EXAMINED_CHARACTERS ready for the rules, as (with links, without links)."""
    text = _CONTINUATION.sub(" ", text[:EXAMINED_CHARACTERS]).lower()
    if not text.isascii():
        text = text.translate(_FOLDED)
    linked = _SPACES.sub(" ", _ADDRESS.sub(" addr ", text)).strip()
    return linked, _URL.sub("", linked)
