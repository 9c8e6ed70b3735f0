"""A scan as a PDF in which its text is found where it stands."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pypdfium2
import pytest

from ingestion_worker.document import Page
from ingestion_worker.ocr.engine import opened_engine
from ingestion_worker.ocr.recognition import PageOrder, recognise_pages
from ingestion_worker.problem import DocumentError, Problem
from ocr_harness import InThreads, done, ocr_settings
from scans import A4, ENGLISH, GERMAN, character_error_rate, pdf, picture

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

PDF = "application/pdf"


async def read(folder: Path, media_type: str, *numbers: int) -> None:
    async def forget(page: Page) -> None:
        assert page.text

    tasks = InThreads()
    pages = [Page(number, "", "none", "NO_TEXT") for number in numbers]
    async with opened_engine(
        ocr_settings(ocr_searchable_pdf=True), tasks, lambda *_: pytest.fail("no dependency")
    ) as engine:
        await recognise_pages(tasks, engine, folder, pages, PageOrder(media_type, 150), forget)


def scanned(*pages: Image.Image) -> bytes:
    """Return a PDF of pictures of pages, each as large as A4, the third a page of text."""
    with pypdfium2.PdfDocument.new() as made, pypdfium2.PdfDocument(pdf(GERMAN)) as text:
        for image in pages:
            page = made.new_page(*A4)
            bitmap = pypdfium2.PdfBitmap.from_pil(image)
            one = pypdfium2.PdfImage.new(made)
            one.set_bitmap(bitmap)
            one.set_matrix(pypdfium2.PdfMatrix().scale(*A4))
            page.insert_obj(one)
            page.gen_content()
        made.import_pages(text)
        out = io.BytesIO()
        made.save(out)
        return out.getvalue()


async def test_scanned_pages_get_their_text_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(scanned(picture(ENGLISH, dpi=150)))
    await read(tmp_path, PDF, 1)

    result = done("assemble", {"mediaType": PDF, "password": None, "pages": 2}, tmp_path)

    assert result == {"pages": 2, "bytes": (tmp_path / "searchable.pdf").stat().st_size}
    with pypdfium2.PdfDocument(tmp_path / "searchable.pdf") as made, pypdfium2.PdfDocument(pdf(ENGLISH)) as original:
        texts = [page.get_textpage().get_text_bounded() for page in made]
        assert character_error_rate(ENGLISH, texts[0]) <= 0.01
        assert character_error_rate(GERMAN, texts[1]) == 0
        assert made[0].get_size() == pytest.approx(A4, abs=1)
        # A word is found where it is printed, within a millimetre.
        found, printed = (document[0].get_textpage().get_charbox(0) for document in (made, original))
        assert found == pytest.approx(printed, abs=3)


async def test_a_photo_becomes_a_page(tmp_path: Path) -> None:
    picture(ENGLISH, dpi=150).save(tmp_path / "source", "PNG")
    await read(tmp_path, "image/png", 1)

    done("assemble", {"mediaType": "image/png", "password": None, "pages": 1}, tmp_path)

    with pypdfium2.PdfDocument(tmp_path / "searchable.pdf") as made:
        assert max(made[0].get_size()) == pytest.approx(842, abs=1)
        assert character_error_rate(ENGLISH, made[0].get_textpage().get_text_bounded()) <= 0.01


def test_without_any_page_there_is_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as refused:
        done("assemble", {"mediaType": "image/png", "password": None, "pages": 3}, tmp_path)

    assert refused.value.problem is Problem.EMPTY
