"""The word filter catches a word however it is written."""

import pytest

from server.domain.words import WordFilter, folded

FILTER = WordFilter(["加微信", "VX號", "假貨", "fuck", "  ", "…"])


@pytest.mark.parametrize(
    "text",
    [
        "快加微信领券",
        "加 微 信",
        "加\u200b微\u200d信",
        "加.微-信!",
        "ｖｘ号",  # full-width, simplified where the list is traditional
        "Vx號",
        "這是假货",
        "FUCK",
        "Ｆ\u0301ｕｃｋ",  # full-width with a combining accent
        "f_u*c k",
        "\u202ekcuf fuck",
    ],
)
def test_refuses_when_the_word_is_disguised_then_it_is_found(text: str) -> None:
    assert FILTER.refuses(text)


@pytest.mark.parametrize("text", ["真好看", "微信", "加油", "", "!!!", "🎉🎉", "vx"])
def test_refuses_when_no_word_is_there_then_the_text_passes(text: str) -> None:
    assert not FILTER.refuses(text)


def test_filter_when_the_list_is_empty_then_everything_passes() -> None:
    assert not WordFilter([]).refuses("anything")
    assert not WordFilter([" ", "\u200b"]).refuses("anything")


def test_folded_when_a_text_is_folded_twice_then_nothing_changes() -> None:
    for text in ("ＡＢＣ 國際 \u0301e\u0301", "ß ﬁ ①", "한국어", "emoji 👩\u200d👩 ok"):
        assert folded(folded(text)) == folded(text)


def test_filter_when_a_word_is_an_emoji_then_it_is_found() -> None:
    assert WordFilter(["💩"]).refuses("so 💩")
