"""Every format is read: its kind found, page for page the text that was written, marks of Markdown apart."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import pytest

from bounded_reading import read_bounded, read_here
from ingestion_worker.problem import Problem
from sample_documents import PASSWORD, Sample, samples

if TYPE_CHECKING:
    from pathlib import Path

MARKS = re.compile(r"[#|*`\s-]+")
ALL = pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
LOCKED = pytest.mark.parametrize("sample", [s for s in samples() if s.password], ids=lambda sample: sample.name)
PARTS = 6
# What a document may end with that was cut or changed.
TYPED = {"read", *Problem}


def words(text: str) -> list[str]:
    return MARKS.sub(" ", text.replace("\\|", "|")).split()


def similarity(expected: str, found: str) -> float:
    return SequenceMatcher(None, words(expected), words(found), autojunk=False).ratio()


@ALL
def test_its_text_is_found(sample: Sample, tmp_path: Path) -> None:
    ending = read_here(tmp_path, sample.content, sample.name, password=sample.password)

    assert ending.how == "read", ending.sentence
    assert ending.result["mediaType"] == sample.media_type
    assert ending.result["pages"] == len(ending.pages) == len(sample.pages)
    assert ending.result["ocrPages"] == sample.needs_ocr
    for expected, found in zip(sample.pages, ending.texts, strict=True):
        assert similarity(expected, found) >= 0.98, found


@ALL
def test_its_kind_is_found_without_a_name(sample: Sample, tmp_path: Path) -> None:
    ending = read_here(tmp_path, sample.content, password=sample.password)

    assert ending.how == "read", ending.sentence
    assert ending.result["mediaType"] == sample.media_type


@ALL
def test_a_wrong_name_is_corrected(sample: Sample, tmp_path: Path) -> None:
    wrong = "application/pdf" if sample.media_type != "application/pdf" else "image/png"

    ending = read_here(tmp_path, sample.content, password=sample.password, format=wrong)

    assert ending.how == "read", ending.sentence
    assert ending.result["mediaType"] == sample.media_type
    assert f"declared as {wrong}, found to be {sample.media_type}" in ending.result["warnings"]


@ALL
def test_cut_short_it_ends_typed(sample: Sample, tmp_path: Path) -> None:
    for part in range(1, PARTS):
        cut = sample.content[: len(sample.content) * part // PARTS]
        ending = read_bounded(tmp_path, cut, sample.name, password=sample.password)

        assert ending.how in TYPED - {Problem.CRASH}, (part, ending.sentence)


@ALL
def test_with_bytes_changed_it_ends_typed(sample: Sample, tmp_path: Path) -> None:
    size = len(sample.content)
    for part in range(PARTS):
        changed = bytearray(sample.content)
        # Places that differ between samples and are the same in each run.
        for step in range(1 + part * 4):
            changed[(size * (part * 7 + step * 13 + 3) // 97) % size] ^= 1 << (part + step) % 8
        ending = read_bounded(tmp_path, bytes(changed), sample.name, password=sample.password)

        assert ending.how in TYPED - {Problem.CRASH}, (part, ending.sentence)


@LOCKED
def test_without_its_password_it_stays_closed(sample: Sample, tmp_path: Path) -> None:
    missing = read_here(tmp_path, sample.content, sample.name)
    wrong = read_here(tmp_path, sample.content, sample.name, password=PASSWORD.upper())

    assert missing.how == wrong.how == Problem.ENCRYPTED
    assert "options.password" in missing.sentence
    assert "send the right one" in wrong.sentence
