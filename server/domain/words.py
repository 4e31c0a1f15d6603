"""The word filter: does a text contain a word of a show's list, whatever way it is written?

Both sides are folded to one spelling: NFKC (full-width and compatibility forms), case, 繁體 to
简体 (OpenCC t2s), and all removed that is no letter, digit, emoji or currency sign (zero-width
and combining marks, spaces and punctuation between the letters of a word). Search is one pass of
Aho-Corasick over the text: its time does not depend on the length of the list.
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import ahocorasick_rs
import opencc


@lru_cache(maxsize=1)
def _to_simplified() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


def folded(text: str) -> str:
    """`text` in the spelling words are compared in; may be empty."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", text) if _counts(c))
    return str(_to_simplified().convert(unicodedata.normalize("NFKC", letters).casefold()))


def _counts(character: str) -> bool:
    """Letters, digits, emoji and currency signs count; marks, separators, punctuation do not."""
    category = unicodedata.category(character)
    return category[0] in "LN" or category in ("So", "Sc")


class WordFilter:
    """An immutable list of refused words. Words that fold to nothing are ignored."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        spellings = sorted({spelling for word in words if (spelling := folded(word))})
        self._search = ahocorasick_rs.AhoCorasick(spellings) if spellings else None

    def refuses(self, text: str) -> bool:
        """True when a word of the list occurs anywhere in `text`."""
        return self._search is not None and bool(self._search.find_matches_as_indexes(folded(text)))
