"""Old Office documents that other programs read, and that our libraries once refused or died of."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from bounded_reading import read_bounded
from compound_files import compound_file
from ingestion_worker.problem import Problem
from old_office_documents import number_cell, old_sheet, old_text, sheet_of_excel_4

if TYPE_CHECKING:
    from pathlib import Path

FREE, IN_NO_FILE = b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff"


def test_cells_in_far_corners_of_an_xls_are_cells(tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, old_sheet(number_cell(65_535, 255, 7)), "far.xls")

    assert ending.texts == ["# Prices\n\n| Part | Price |  |\n| --- | --- | --- |\n| Bolt | 0.25 |  |\n|  |  | 7 |"]


def test_a_workbook_whose_names_one_library_does_not_understand_is_read_by_the_other(tmp_path: Path) -> None:
    note = struct.pack("<HHHHHHH", 0x001C, 10, 0, 0, 0, 0, 99)

    ending = read_bounded(tmp_path, old_sheet(note), "note.xls")

    assert "Bolt" in ending.texts[0]


def test_a_sheet_of_excel_4_is_read(tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, sheet_of_excel_4((0, 0, "Season"), (1, 0, "1977/78")), "old.xls")

    assert ending.result["mediaType"] == "application/vnd.ms-excel"
    assert "| Season |\n| --- |\n| 1977/78 |" in ending.texts[0]


def test_a_workbook_of_blank_sheets_is_empty(tmp_path: Path) -> None:
    assert read_bounded(tmp_path, sheet_of_excel_4(), "blank.xls").how == Problem.EMPTY


def test_a_locked_xls_is_locked_and_not_broken(tmp_path: Path) -> None:
    # Nothing but the word that the rest is encrypted, in a way that nobody knows.
    begin = struct.pack("<HHHHHHII", 0x0809, 16, 0x0600, 0x0005, 0, 0, 0, 0)
    book = begin + struct.pack("<HHHHH", 0x002F, 6, 7, 7, 7) + bytes(500)

    assert read_bounded(tmp_path, compound_file({"Workbook": book}), "locked.xls").how == Problem.ENCRYPTED


def test_a_doc_that_ends_with_its_last_sector_in_use_is_read(tmp_path: Path) -> None:
    whole = old_text(["A letter"])
    table = 512 * (1 + struct.unpack_from("<I", whole, 76)[0])
    cut = whole[:table] + whole[table : table + 512].replace(FREE, IN_NO_FILE) + whole[table + 512 :]

    assert "A letter" in read_bounded(tmp_path, cut, "letter.doc").texts[0]
