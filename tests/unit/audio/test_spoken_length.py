"""How long a text may take to speak. The seconds are espeak-ng's, measured between its edges."""

from __future__ import annotations

import pytest

from understudy.audio.spoken_length import longest_plausible_s, shortest_plausible_s

#: Text, and the seconds it takes at 80, 160 and 300 words a minute.
SPOKEN = {
    "Hi": (0.76, 0.38, 0.18),
    "Oui.": (0.44, 0.24, 0.14),
    "Strengths": (1.08, 0.66, 0.40),
    "Could you please spell your last name for me?": (4.36, 2.32, 1.28),
    "We are open from Monday to Friday between eight and six, and on Saturdays until one, except "
    "on public holidays.": (13.28, 7.04, 3.78),
    "Veuillez patienter pendant que je vérifie cela pour vous.": (5.18, 2.72, 1.50),
    "Rechtsschutzversicherungsgesellschaften zahlen nicht.": (4.76, 2.84, 1.72),
    "早上好,感谢您的来电。今天我能为您做些什么?": (14.40, 7.62, 4.46),
    "おはようございます。お電話ありがとうございます。": (16.22, 8.06, 3.92),
    "صباح الخير، شكرا لاتصالك.": (5.28, 2.82, 1.40),
    "नमस्ते, कॉल करने के लिए धन्यवाद।": (4.84, 2.48, 1.34),
    "IBAN: GB29NWBK60161331926819": (20.46, 10.84, 6.02),
    "4111-1111-1111-1111": (15.74, 8.36, 4.78),
    "1Z999AA10123456784": (15.74, 8.30, 4.68),
    "550e8400-e29b-41d4-a716-446655440000": (23.86, 12.64, 6.94),
    "Visit https://www.example.com/account/reset-password?token=8f3a91c27b": (19.84, 10.86, 6.04),
    "https://maps.example.com/?q=52.5200,13.4050&z=17#frag": (21.88, 11.88, 6.34),
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ": (3.28, 2.08, 1.36),
    "100000000": (2.02, 1.08, 0.66),
    "$1,234,567.89": (10.40, 5.52, 3.02),
    "x = (a + b) * c / 2 - 5%": (8.06, 4.18, 2.06),
    "😀👍 great!": (1.80, 1.06, 0.68),
}


@pytest.mark.parametrize("text", SPOKEN)
def test_slow_and_fast_voices_are_within_the_limits(text: str) -> None:
    slow, _, fast = SPOKEN[text]
    assert shortest_plausible_s(text) <= fast
    assert slow * 1.3 <= longest_plausible_s(text)


@pytest.mark.parametrize("text", [text for text in SPOKEN if len(text) > 40 and text.isascii()])
def test_many_times_as_much_is_too_long(text: str) -> None:
    assert longest_plausible_s(text) < 7 * SPOKEN[text][1]


@pytest.mark.parametrize(
    "text",
    [
        "Could you please spell your last name for me?",
        "Veuillez patienter pendant que je vérifie cela pour vous.",
        "4111-1111-1111-1111",
    ],
)
def test_a_third_of_a_text_is_too_short(text: str) -> None:
    assert 0.3 * SPOKEN[text][1] < shortest_plausible_s(text)


def test_a_runaway_greeting_is_too_long() -> None:
    assert longest_plausible_s("Hi.") < 6


def test_signs_of_vowels_and_marks_alone_are_nothing_to_say() -> None:
    assert shortest_plausible_s("… — !?") == shortest_plausible_s("") == 0.1
    assert longest_plausible_s("") == 4.0
