"""Ids as the model's own tokenizer gives them: what is written here was compared with it once, for every code point."""

from __future__ import annotations

import pytest

from ingestion_worker.embeddings import wordpiece
from ingestion_worker.embeddings.wordpiece import uncased

# What Hugging Face's `tokenizers` 0.23 makes of these with the model's tokenizer.json.
IDS = {
    "": [101, 102],
    "Hello, world!": [101, 7592, 1010, 2088, 999, 102],
    "Überraschend schöne Straße": [101, 19169, 8180, 8661, 2094, 8040, 27406, 2358, 27807, 102],
    "漢字 and かな": [101, 1904, 100, 1998, 1651, 30193, 102],
    "한국어": [101, 1469, 30006, 30021, 29991, 30014, 30020, 29999, 30008, 102],
    "ΟΔΟΣ İstanbul \ufb01ne": [101, 1169, 29722, 29730, 29733, 9960, 1984, 2638, 102],
    "zero\u200bwidth a\x0bb": [101, 5717, 9148, 11927, 2232, 11113, 102],
    "x" * 101: [101, 100, 102],
    # Its own tokenizer would take this for the end of a text.
    "naïve-café [SEP] 🙂": [101, 15743, 1011, 7668, 1031, 19802, 1033, 100, 102],
}


@pytest.mark.parametrize("text", IDS, ids=lambda text: text[:12])
def test_the_ids_are_the_models_own(text: str) -> None:
    assert uncased().encode(text, 512) == IDS[text]
    assert uncased().count(text) == len(IDS[text]) - 2


def test_a_text_that_is_too_long_is_cut_and_ends_as_every_text() -> None:
    assert uncased().encode("hello " * 600, 512) == [101, *[7592] * 510, 102]


def test_the_count_of_words_is_their_sum() -> None:
    words = ["An", "unaffable", "漢字x,", "e-mail;", "supercalifragilistic"]
    assert uncased().count("\n ".join(words)) == sum(map(uncased().count, words))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece, "MOST_REMEMBERED", 10)
    wordpiece.uncased.cache_clear()
    model = uncased()
    assert model.count(" ".join(f"w{number}" for number in range(1000))) > 1000
    assert len(model._words) <= 10


def test_another_vocabulary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece, "VOCABULARY_SHA256", "0" * 64)
    wordpiece.uncased.cache_clear()
    with pytest.raises(ValueError, match="install it anew"):
        uncased()


@pytest.fixture(autouse=True)
def forgotten() -> None:
    wordpiece.uncased.cache_clear()
