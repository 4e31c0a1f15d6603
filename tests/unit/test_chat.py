"""Texts and names of viewers: what is shown, what is refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.chat import clean_chat, clean_name
from server.errors import Refused
from server.limits import CHAT_CHARS_MAX, CHAT_COMBINING_MAX, NAME_CHARS_MAX


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello", "hello"),
        ("  two   words ", "two words"),
        ("真好看，想要！", "真好看，想要！"),  # full-width punctuation stays
        ("line\nbreak\ttab", "line break tab"),
        ("a\u2028b", "a b"),
        ("\u202eevil\u202c", "evil"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("e\u0301", "é"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("👍🏽", "👍🏽"),
        ("a\u200db", "ab"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ],
)
def test_clean_chat_when_the_text_is_fine_then_this_is_shown(text: str, shown: str) -> None:
    assert clean_chat(text) == shown


@pytest.mark.parametrize("text", ["", "   ", "\u200b\u200b", "\n\n", "\u202e"])
def test_clean_chat_when_nothing_visible_is_left_then_text_empty(text: str) -> None:
    with pytest.raises(Refused, match="text_empty"):
        clean_chat(text)


@pytest.mark.parametrize("text", ["nul\0", "bell\x07", "esc\x1b[31m", "c1\x9b", "lone\ud800"])
def test_clean_chat_when_it_holds_controls_then_bad_field(text: str) -> None:
    with pytest.raises(Refused, match="bad_field"):
        clean_chat(text)


def test_clean_chat_when_the_length_is_at_the_bound_then_it_passes_and_one_more_does_not() -> None:
    assert clean_chat("买" * CHAT_CHARS_MAX) == "买" * CHAT_CHARS_MAX
    with pytest.raises(Refused, match="text_too_long"):
        clean_chat("买" * (CHAT_CHARS_MAX + 1))


def test_clean_chat_when_one_character_means_many_then_they_all_count() -> None:
    with pytest.raises(Refused, match="text_too_long"):
        clean_chat("\ufdfa" * 7)  # 18 characters each after NFKC


def test_clean_chat_when_marks_are_piled_up_then_the_tower_is_cut() -> None:
    shown = clean_chat("Z" + "\u0300" * 50)
    assert shown == "Z" + "\u0300" * CHAT_COMBINING_MAX


@given(st.text(max_size=300))
def test_clean_chat_when_any_text_comes_then_it_is_clean_or_refused(text: str) -> None:
    try:
        shown = clean_chat(text)
    except Refused:
        return
    assert 1 <= len(shown) <= CHAT_CHARS_MAX
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Cn", "Co") for c in shown)
    assert clean_chat(shown) == shown


@pytest.mark.parametrize("name", ["官方小助手", "主播", "ＡＤＭＩＮ", "Off.icial", "主\u200b播"])
def test_clean_name_when_it_passes_for_the_house_then_forbidden(name: str) -> None:
    with pytest.raises(Refused, match="forbidden"):
        clean_name(name)


def test_clean_name_when_it_is_fine_then_it_is_trimmed() -> None:
    assert clean_name("  小明  ") == "小明"
    with pytest.raises(Refused, match="text_too_long"):
        clean_name("x" * (NAME_CHARS_MAX + 1))
    with pytest.raises(Refused, match="text_empty"):
        clean_name(" ")
