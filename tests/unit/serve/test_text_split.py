import random
import re
import string

import pytest

from understudy.audio.speech_check import count_words
from understudy.audio.spoken_length import shortest_plausible_s
from understudy.serve.text_split import plain_text, split_text

FILLER = "Then the caller asked whether anybody could say when the shop would be open again. "


def ends(text, target=120):
    return [piece.split()[-1] for piece in split_text(text, target)]


@pytest.mark.parametrize("text", ["Hello.", "One. Two! Three?", "wand" * 75, "No end"])
def test_a_short_text_stays_whole(text):
    assert split_text(text) == [text]


def test_white_space_is_one_space():
    assert split_text("  One\n two.\t Three.\n\nFour.  ") == ["One two. Three. Four."]


@pytest.mark.parametrize(
    "kept",
    [
        "ask Dr. Miller",
        "it was 3.5 Volts",
        "at 5 a.m. Monday",
        "by J. R. R. Tolkien",
        "well... Maybe not",
        "well\u2026 Maybe not",
        "in the U.S. Army",
        "e.g. Apples",
        "No. 7",
        "St. Mary",
        "on Jan. 5",
        "Inc. Magazine",
        "a Ph.D. Thesis",
        'so "Really?" she said',
        "see www.example.com Now",
        "version 1.2.3 Beta",
        "(cf. Smith)",
    ],
)
def test_no_cut_where_no_sentence_ends(kept):
    """Whatever the length before it, the words stay together."""
    for lead in range(1, 60, 3):
        text = f"{FILLER}X{'x' * lead} {kept} and {FILLER}{FILLER}"
        assert any(kept in piece for piece in split_text(text, 200)), (lead, split_text(text, 200))


def test_an_enumeration():
    text = f"{FILLER}1. First {FILLER}2. Second {FILLER}"
    assert [piece[:8] for piece in split_text(text, 100)][1:] == ["1. First", "2. Secon"]


def test_pieces_end_where_sentences_do():
    text = FILLER * 3 + 'He said: "Never!" ' + FILLER + "Is it? " + FILLER
    for piece in split_text(text, 120):
        assert piece[-1] in '.!?"'


def test_an_over_long_sentence_is_cut_at_commas():
    clause = "and then there was yet another one of those things that go on"
    text = ", ".join([clause] * 12) + "."
    pieces = split_text(text)
    assert all(piece.endswith((",", ".")) for piece in pieces)
    assert " ".join(pieces) == text


def test_else_at_spaces_else_anywhere():
    text = "word " * 200
    assert " ".join(split_text(text)) == text.strip()
    assert [len(piece) for piece in split_text("wand" * 175)] == [300, 300, 100]


def test_a_blank_line_ends_a_sentence():
    text = f"A heading without an end\n\n{FILLER * 4}"
    assert split_text(text, 100)[0] == "A heading without an end"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Monday nine to five\nTuesday closed\nWednesday ten to four",
            "Monday nine to five. Tuesday closed. Wednesday ten to four",
        ),
        ("milk\neggs\r\nbread", "milk. eggs. bread"),
        ("Shopping list:\n- milk\n* eggs\n\u2022 bread", "Shopping list: milk. eggs. bread"),
        ("1. First\n2. Second", "1. First. 2. Second"),
        ("Really?\nYes,\nreally", "Really? Yes, really"),
        ("A title\n\nThen a text.", "A title. Then a text."),
        (
            "The quick brown fox jumps over\nthe lazy dog.",
            "The quick brown fox jumps over the lazy dog.",
        ),
        ("x" * 61 + "\nGoes on", "x" * 61 + " Goes on"),
        ("- 5 degrees", "- 5 degrees"),
    ],
)
def test_the_lines_of_a_list_are_sentences(text, said):
    assert split_text(text) == [said]


def test_and_so_they_are_in_a_long_text():
    lines = "\n".join(f"Item {number} of all that is on the list" for number in range(40))
    pieces = split_text(lines)
    assert len(pieces) > 3
    assert all("list. Item" in piece for piece in pieces)
    assert not any("\n" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hello\u0085world", "Hello world"),
        ("a\vb\fc", "a b c"),
        ("a\u2028b\u2029c", "a\nb\nc"),
        ("don\x92t \x93say\x94 1\x962", "don\u2019t \u201csay\u201d 1\u20132"),
        ("\x80\x81\x8d\x99\x9f!", "     !"),
        ("a\u200bb\u200cc\u200dd\u2060e", "abcde"),
        ("\ufeffHello", "Hello"),
        ("\u202eHello\u202c \u2067there\u2069\u200f", "Hello there"),
        ("co\u00adop", "coop"),
        ("\u2764\ufe0f", "\u2764"),
        ("One\tline\r\nand caf\u00e9", "One\tline\r\nand caf\u00e9"),
    ],
)
def test_what_only_steers_the_display_is_not_spoken(text, plain):
    assert plain_text(text) == plain


@pytest.mark.parametrize("character", ["\0", "\a", "\x1b", "\x7f", "\x1c"])
def test_other_control_characters_are_named(character):
    with pytest.raises(ValueError, match=rf"U\+00{ord(character):02X} at position 3"):
        plain_text(f"One{character}")


def test_no_scrap_is_left_over():
    text = FILLER * 7 + "Okay? Bye."
    pieces = split_text(text)
    assert len(pieces[-1]) > 75
    assert max(map(len, pieces)) <= 375


def test_what_has_no_word_is_left_out():
    text = f"{FILLER * 3} --- *** !!! {FILLER * 3}"
    assert all(count_words(piece) for piece in split_text(text))
    assert "!" * 400 not in " ".join(split_text("Hello " + "!" * 400))


def test_nothing_is_lost_or_invented_whatever_the_text():
    generator = random.Random(1)
    alphabet = string.ascii_letters * 3 + string.digits + " " * 30 + ".,;:!?\"'()-\n" * 2
    for _ in range(300):
        text = "a" + "".join(generator.choices(alphabet, k=generator.randint(1, 2000)))
        pieces = split_text(text)
        letters = "".join(c for c in text if c.isalnum())
        assert "".join(c for piece in pieces for c in piece if c.isalnum()) == letters
        assert all(0 < len(piece) <= 376 and count_words(piece) for piece in pieces)


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"1Z{number:016d}" for number in range(12)),
        " ".join(f"{number:04d}" for number in range(45)),
        "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u8d70\u8d70\u3002"
        * 19,
    ],
)
def test_what_takes_long_to_say_is_cut_into_shorter_pieces(text: str) -> None:
    pieces = split_text(text)
    assert max(map(shortest_plausible_s, pieces)) < 14
    assert re.sub(r"\W", "", "".join(pieces)) == re.sub(r"\W", "", text)


def test_usual_text_is_cut_as_before() -> None:
    text = "This is a sentence of the usual kind, with a clause. " * 5
    assert len(split_text(text.strip())) == 1
