"""Text as it is stored."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion_worker.reading.normalise import normalise


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A\u0308rger", "Ärger"),
        ("nul\0 bell\a", "nul bell"),
        ("a lone \ud83d surrogate", "a lone \ufffd surrogate"),
        ("e\ufb03cient \ufb01sh", "efficient fish"),
        ("co\u00adoperate", "cooperate"),
        ("zero\u200bwidth \u202eside\u202c", "zerowidth side"),
        ("hard\u00a0space", "hard space"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("a  \n\n\n\n\nb\n\n", "a\n\nb"),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467", "family \U0001f468\u200d\U0001f469\u200d\U0001f467"),
    ],
)
def test_what_cannot_be_stored_is_cleaned(raw: str, clean: str) -> None:
    assert normalise(raw, wrapped=False) == clean


LETTER = """\
The agreement between the two of us begins on the first day of the month and it ends af-
ter three years have gone by, unless one of the two gives notice in writing six months ear-
lier than that. No reason is needed.
A second paragraph begins after a short line, and goes on for long enough to be wrapped by
the paper's edge.

- an item that is as long as any other line is on this page, so that it might be joined to it
- another

Ada Lovelace
12 St James's Square
London"""


def test_paragraphs_are_unwrapped() -> None:
    blocks = normalise(LETTER, wrapped=True).split("\n")

    assert blocks[0].endswith(
        "it ends after three years have gone by, unless one of the two gives notice in writing six "
        "months earlier than that. No reason is needed."
    )
    assert blocks[1].endswith("wrapped by the paper's edge.")
    assert blocks[3].startswith("- an item")
    assert blocks[4] == "- another"
    assert blocks[6:] == ["Ada Lovelace", "12 St James's Square", "London"]


def test_the_layout_is_left_alone_if_asked_for() -> None:
    assert normalise(LETTER, wrapped=True, preserve=True) == LETTER


def test_words_that_pdfium_marks_as_divided_are_joined() -> None:
    text = "a line that is quite long and ends in an exam\ufffe\r\nple of a divided word, of which there are some"

    assert "an example of" in normalise(text, wrapped=True)


def test_chinese_lines_are_joined_without_a_space() -> None:
    line = "合同自双方签字之日起生效有效期为三年到期前六个月任何一方均可书面通知"

    assert normalise(f"{line}\n{line}", wrapped=True) == line + line


@given(st.text(st.characters(codec=None), max_size=300), st.booleans(), st.booleans())
def test_any_text_becomes_storable_and_stays_so(text: str, wrapped: bool, preserve: bool) -> None:  # noqa: FBT001
    clean = normalise(text, wrapped=wrapped, preserve=preserve)

    clean.encode("utf-8")
    assert "\0" not in clean
    assert unicodedata.is_normalized("NFC", clean)
    assert "\n\n\n" not in clean
