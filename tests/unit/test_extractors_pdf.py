"""When a page of a PDF needs OCR, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bounded_reading import order, read_here
from hostile_documents import CATALOG, FONT, ONE_PAGE, boundless_pdf, raw_pdf, stream
from ingestion_worker.isolation.task import Desk
from ingestion_worker.problem import Problem
from ingestion_worker.reading.read import read
from sample_documents import PARAGRAPHS, image, pdf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BLANK = ""
TO_UNICODE = (
    b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00> <FF> endcodespacerange "
    b"1 beginbfrange <20> <7E> <E020> endbfrange endcmap end end"
)


def reasons(folder: Path, content: bytes, ocr: str = "auto") -> Sequence[str | None]:
    ending = read_here(folder, content, ocr=ocr)
    assert ending.how == "read", ending.sentence
    return [page.ocr_reason for page in ending.pages]


def nameless_letters() -> bytes:
    """Text in a font whose letters are mapped to private ones."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 5 0 R>>>>/Contents 4 0 R>>"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>"
    text = stream(b"BT /F1 12 Tf 72 700 Td (What nobody can read in this font of ours) Tj ET")
    return raw_pdf([CATALOG, ONE_PAGE, page, text, font, stream(TO_UNICODE)])


def outlines(count: int) -> bytes:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R>>"
    return raw_pdf([CATALOG, ONE_PAGE, page, stream(b"9 9 m 90 90 l S\n" * count)])


def test_text_needs_none(tmp_path: Path) -> None:
    assert reasons(tmp_path, pdf()) == [None, None, None]


def test_a_picture_without_text_does(tmp_path: Path) -> None:
    assert reasons(tmp_path, pdf([BLANK, PARAGRAPHS[0]], picture=True)) == ["NO_TEXT", None]


def test_a_page_with_nothing_on_it_does_not(tmp_path: Path) -> None:
    ending = read_here(tmp_path, pdf([BLANK, PARAGRAPHS[0]]))

    assert [(page.origin, page.ocr_reason) for page in ending.pages] == [("none", None), ("text", None)]


def test_a_stamp_on_a_scan_does(tmp_path: Path) -> None:
    assert reasons(tmp_path, pdf(["Page 7 of 9"], picture=True)) == ["LITTLE_TEXT"]


def test_letters_drawn_as_outlines_do(tmp_path: Path) -> None:
    assert reasons(tmp_path, outlines(300)) == ["NO_TEXT"]
    assert read_here(tmp_path, outlines(5)).how == Problem.EMPTY


def test_text_that_nobody_sees_does_and_is_kept_meanwhile(tmp_path: Path) -> None:
    ending = read_here(tmp_path, pdf(PARAGRAPHS[:1], hidden=True, picture=True))

    assert [page.ocr_reason for page in ending.pages] == ["INVISIBLE_TEXT"]
    assert ending.texts == [PARAGRAPHS[0]]


def test_letters_without_a_name_do(tmp_path: Path) -> None:
    assert reasons(tmp_path, nameless_letters()) == ["UNMAPPED_CHARACTERS"]


def test_the_order_has_the_last_word(tmp_path: Path) -> None:
    scan = pdf([BLANK, PARAGRAPHS[0]], picture=True)

    assert reasons(tmp_path, scan, ocr="always") == ["ASKED_FOR", "ASKED_FOR"]
    assert reasons(tmp_path, scan, ocr="never") == [None, None]


def test_a_scan_is_empty_without_ocr(tmp_path: Path) -> None:
    ending = read_here(tmp_path, pdf([BLANK], picture=True), ocr="never")

    assert ending.how == Problem.EMPTY
    assert "OCR was not asked for" in ending.sentence
    assert read_here(tmp_path, image(), ocr="never").how == Problem.EMPTY


def test_a_page_too_large_for_any_picture_is_left_to_its_text(tmp_path: Path) -> None:
    ending = read_here(tmp_path, boundless_pdf(20_000), ocr="always")

    assert [page.ocr_reason for page in ending.pages] == [None]
    assert "page 1 is larger" in ending.result["warnings"][0]


def test_metadata(tmp_path: Path) -> None:
    metadata = read_here(tmp_path, pdf()).result["metadata"]

    assert (metadata["title"], metadata["author"]) == ("The agreement", "Ada Lovelace")
    assert metadata["created"] == "2000-01-01T00:00:00+00:00"
    assert read_here(tmp_path, pdf(), extractMetadata=False).result["metadata"] == {}


def test_metadata_has_bounds(tmp_path: Path) -> None:
    long = b"(" + b"x" * 5000 + b")"
    fields = b"".join(
        b"/%s %s" % (key, long) for key in (b"Title", b"Author", b"Subject", b"Keywords", b"Creator", b"Producer")
    )
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources " + FONT + b"/Contents 4 0 R>>"
    content = raw_pdf([CATALOG, ONE_PAGE, page, stream(b"BT /F1 9 Tf (a) Tj ET"), b"<<" + fields + b">>"])
    content = content.replace(b"trailer <<", b"trailer <</Info 5 0 R")

    metadata = read_here(tmp_path, content).result["metadata"]

    assert {len(str(value)) for value in metadata.values()} == {300}


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    (tmp_path / "source").write_bytes(pdf([PARAGRAPHS[0]] * 25))

    read(Desk(tmp_path, order(), lambda done, of: told.append((done, of))))

    assert told == [(10, 25), (20, 25), (25, 25)]
