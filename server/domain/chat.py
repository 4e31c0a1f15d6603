"""What may be said in a room and how it is written: cleaning of texts and names.

Texts are shown in NFC (full-width punctuation is how Chinese is written) but measured after NFKC,
where one character may become many. Shown text has no controls, no direction overrides, no
invisible characters except the joiners inside emoji, and no towers of combining marks.
"""

import unicodedata
from typing import Final

from server.domain.words import folded
from server.errors import Refused
from server.limits import CHAT_CHARS_MAX, CHAT_COMBINING_MAX, NAME_CHARS_MAX

ZERO_WIDTH_JOINER: Final = "\u200d"
_TAB_LIKE: Final = "\t\n\r"  # typed by people; everything else below U+0020 is not

# A viewer's name must not pass for the host's or the platform's (compared folded).
RESERVED_NAMES: Final = tuple(
    folded(word)
    for word in (
        "主播",
        "官方",
        "客服",
        "管理员",
        "系统",
        "official",
        "admin",
        "moderator",
        "livesale",
    )
)


def clean_chat(text: str) -> str:
    """`text` as it will be shown. Raises Refused: text_empty, text_too_long, bad_field (controls).

    The result has 1 to CHAT_CHARS_MAX characters, measured after NFKC.
    """
    shown = _visible(text)
    if not shown:
        raise Refused("text_empty", field="text")
    if max(len(shown), len(unicodedata.normalize("NFKC", shown))) > CHAT_CHARS_MAX:
        raise Refused("text_too_long", field="text")
    return shown


def clean_name(name: str) -> str:
    """A viewer's display name. Raises Refused: text_empty, text_too_long, bad_field, forbidden.

    Names that contain a word of RESERVED_NAMES are forbidden.
    """
    shown = _visible(name)
    if not shown:
        raise Refused("text_empty", field="name")
    if max(len(shown), len(unicodedata.normalize("NFKC", shown))) > NAME_CHARS_MAX:
        raise Refused("text_too_long", field="name")
    spelling = folded(shown)
    if any(word in spelling for word in RESERVED_NAMES):
        raise Refused("forbidden", "the name is reserved", field="name")
    return shown


def _visible(text: str) -> str:
    """NFC, white space joined to single blanks, invisible characters gone.

    Raises Refused bad_field for NUL, other controls and lone surrogates.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept: list[str] = []
    marks = 0
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if _is_shown(character, category, marks, kept):
            kept.append(character)
    return " ".join("".join(kept).split()).strip(ZERO_WIDTH_JOINER)


def _is_shown(character: str, category: str, marks: int, before: list[str]) -> bool:
    if category in ("Cc", "Cs"):
        if character in _TAB_LIKE:
            return True
        raise Refused("bad_field", "control characters are not allowed", field="text")
    if character == ZERO_WIDTH_JOINER:  # joins emoji to one picture; alone it hides letters
        return bool(before) and unicodedata.category(before[-1]) in ("So", "Sk", "Mn")
    if category in ("Cf", "Cn", "Co", "Zl", "Zp"):
        return category in ("Zl", "Zp")  # line separators become blanks in the join
    return marks <= CHAT_COMBINING_MAX
