"""No file does harm: each ends with a result, with a typed problem, or is killed by its limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bounded_reading import MEMORY_BYTES, read_bounded
from hostile_documents import Hostile, far_corners, hostile_documents, mail_with_bomb
from ingestion_worker.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1_048_576


@pytest.mark.parametrize("hostile", hostile_documents(), ids=lambda hostile: hostile.name)
def test_it_ends_as_it_should(hostile: Hostile, tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, hostile.make(), hostile.name)

    assert ending.how in hostile.ends, ending.sentence
    assert ending.peak_bytes < MEMORY_BYTES / 2
    assert len(json.dumps(ending.result)) < 4096


def test_far_corners_are_two_cells(tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, far_corners(), "sparse.xlsx")

    assert ending.texts == ["# One\n\n| first |  |\n| --- | --- |\n|  | last |"]


def test_a_mail_with_a_bomb_is_read_without_it(tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, mail_with_bomb(), "bomb.eml")

    assert "see below" in ending.texts[0]
    assert [w for w in ending.result["warnings"] if "bomb.docx was not read: BOMB" in w]


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)

    read_bounded(folder, mail_with_bomb(), "bomb.eml")

    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    assert {path.name for path in folder.iterdir()} == {"source", "attachment-1", "pages.ndjson", "ending"}


def test_a_long_table_is_streamed(tmp_path: Path) -> None:
    row = b"4711,Ada Lovelace,Sankt-Veit-Gasse 42,1130,Wien,2026-03-01,199.90,paid\n"
    rows = 60 * MEBIBYTE // len(row)

    ending = read_bounded(tmp_path, b"a,b,c,d,e,f,g,h\n" + row * rows, "long.csv", maxCharacters=10**9)

    assert ending.how == "read", ending.sentence
    assert sum(text.count("Lovelace") for text in ending.texts) == rows
    assert all(text.startswith("| a | b |") for text in ending.texts)
    assert ending.peak_bytes < 400 * MEBIBYTE


@pytest.mark.parametrize(
    ("setting", "field"), [("DOCUMENT_MAX_CHARACTERS", "maxCharacters"), ("DOCUMENT_MAX_PAGES", "maxPages")]
)
def test_a_limit_is_named_by_its_setting(setting: str, field: str, tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, b"one page\f" * 5 + b"the last", "five.txt", **{field: 4})

    assert ending.how == Problem.TOO_LARGE
    assert setting in ending.sentence
