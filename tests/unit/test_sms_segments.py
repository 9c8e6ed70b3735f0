from __future__ import annotations

import pytest
import smsutil
from hypothesis import given
from hypothesis import strategies as st

from notifications_worker.channels.sms_segments import GSM_BASIC, GSM_EXTENDED, Encoding, segment

GSM, UCS = Encoding.GSM_7, Encoding.UCS_2
EMOJI = "\N{GRINNING FACE}"
ALPHABET = "".join(sorted(GSM_BASIC | GSM_EXTENDED))


@pytest.mark.parametrize(
    ("text", "encoding", "parts"),
    [
        ("", GSM, 1),
        ("a" * 160, GSM, 1),
        ("a" * 161, GSM, 2),
        ("a" * 306, GSM, 2),
        ("a" * 307, GSM, 3),
        ("€" * 80, GSM, 1),
        ("€" * 81, GSM, 2),
        ("Ç" * 160, GSM, 1),
        ("ç" * 70, UCS, 1),
        ("ç" * 71, UCS, 2),
        ("a" * 70 + "\N{RIGHT SINGLE QUOTATION MARK}", UCS, 2),
        ("я" * 70, UCS, 1),
        ("я" * 71, UCS, 2),
        ("я" * 134, UCS, 2),
        ("я" * 135, UCS, 3),
        (EMOJI * 35, UCS, 1),
        (EMOJI * 36, UCS, 2),
    ],
)
def test_a_text_is_counted_as_providers_count_it(text: str, encoding: Encoding, parts: int) -> None:
    counted = segment(text)

    assert (counted.encoding, len(counted.parts)) == (encoding, parts)


def test_the_alphabet_is_complete() -> None:
    assert (len(GSM_BASIC), len(GSM_EXTENDED)) == (127, 10)  # The 128th of the basic table is the escape itself.


def test_nothing_of_two_units_is_cut_in_half() -> None:
    assert segment("a" * 152 + "€" + "a" * 10).parts == ("a" * 152, "€" + "a" * 10)
    assert segment("я" * 66 + EMOJI + "я" * 9).parts == ("я" * 66, EMOJI + "я" * 9)


@given(st.text(ALPHABET, max_size=700) | st.text(max_size=300))
def test_the_parts_are_the_text_each_fits_and_none_could_take_more(text: str) -> None:
    cut = segment(text)
    sizes = [sum(map(cut.encoding.units, part)) for part in cut.parts]

    assert "".join(cut.parts) == text
    assert max(sizes) <= (cut.encoding.alone if len(sizes) == 1 else cut.encoding.joined)
    firsts = [cut.encoding.units(part[0]) for part in cut.parts[1:]]
    assert all(size + first > cut.encoding.joined for size, first in zip(sizes, firsts, strict=False))


@given(st.text(ALPHABET, min_size=1, max_size=700) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=300))
def test_another_implementation_counts_the_same(text: str) -> None:
    cut, theirs = segment(text), smsutil.split(text)

    assert [part.content for part in theirs.parts] == list(cut.parts)
