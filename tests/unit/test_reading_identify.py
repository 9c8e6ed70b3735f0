"""What a file is, and how that is said of what we do not read."""

# ruff: noqa: RUF001  letters of many scripts are the point

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bounded_reading import read_here
from ingestion_worker.problem import Problem
from ingestion_worker.reading.media_types import NAMES, media_type_named
from sample_documents import PARAGRAPHS, docx, zipped

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "seems"),
    [
        (b"\x1f\x8b\x08\0" + bytes(20), "a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "a 7-Zip archive"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC picture"),
        (b"\0\0\0\x18ftypisom" + bytes(20), "a video"),
        (b"MZ\x90\0" + bytes(64), "a program"),
        (b"%!PS-Adobe-3.0\n" + bytes(20), "PostScript"),
        (zipped({"a.txt": "a"}), "a zip archive"),
        (zipped({"Index/Document.iwa": "a"}), "Apple's Pages"),
        (zipped({"mimetype": "application/vnd.oasis.opendocument.graphics"}), "opendocument.graphics"),
        (b"<?xml version='1.0'?><invoice/>", "XML of an unknown kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><text>a</text></svg>", "an SVG drawing"),
        (bytes(range(256)) * 9, "binary data"),
    ],
)
def test_what_is_not_read_is_named(content: bytes, seems: str, tmp_path: Path) -> None:
    ending = read_here(tmp_path, content)

    assert ending.how == Problem.UNSUPPORTED
    assert seems in ending.sentence


@pytest.mark.parametrize(
    ("content", "fields", "media_type"),
    [
        (b"a plain note", {}, "text/plain"),
        (b"a plain note", {"format": "md"}, "text/markdown"),
        (b"a,b\n1,2\n3,4\n", {}, "text/csv"),
        (b"a,b\n1,2\n3,4\n", {"mediaType": "text/plain; charset=utf-8"}, "text/csv"),
        (b"# Title\n\n## Part\n\ntext", {}, "text/markdown"),
        (b"# Title\n\n## Part\n\ntext", {"name": "notes.txt"}, "text/plain"),
        (b"<p>one</p><p>two</p><p>three</p><p>four</p>", {}, "text/html"),
        (b"<p>one", {"mediaType": "text/html"}, "text/html"),
        (b"\n<!-- x -->\n<!DOCTYPE HTML><p>one", {"format": "txt"}, "text/html"),
        (b"From: a@example.com\nTo: b@example.com\nSubject: hello\n\nhello", {}, "message/rfc822"),
        (b"Subject: a note to myself\n\nnothing else", {}, "text/plain"),
        (b"Subject: a note to myself\n\nnothing else", {"name": "mail.eml"}, "message/rfc822"),
        (b"MZ means Mark Zbikowski", {}, "text/plain"),
        (b"The magic of a PDF is %PDF-1.7", {}, "text/plain"),
    ],
)
def test_text_is_told_apart(content: bytes, fields: dict[str, str], media_type: str, tmp_path: Path) -> None:
    name = fields.pop("name", "")

    assert read_here(tmp_path, content, name, **fields).result["mediaType"] == media_type


def test_a_broken_upload_is_not_called_unknown(tmp_path: Path) -> None:
    ending = read_here(tmp_path, docx()[:-400], "agreement.docx")

    assert ending.how == Problem.CORRUPT
    assert "upload it again" in ending.sentence


def test_binary_rubbish_called_pdf_is_corrupt(tmp_path: Path) -> None:
    assert read_here(tmp_path, bytes(range(256)) * 9, "agreement.pdf").how == Problem.CORRUPT


def test_nothing_is_empty(tmp_path: Path) -> None:
    assert read_here(tmp_path, b"").how == Problem.EMPTY


@pytest.mark.parametrize("name", ["pdf", "PDF", ".pdf", "application/pdf", "application/pdf; qs=0.001"])
def test_names_people_give(name: str) -> None:
    assert media_type_named(name) == "application/pdf"


def test_no_name_stands_for_two() -> None:
    names = [name for media_type, others in NAMES.items() for name in (media_type, *others)]

    assert len(names) == len(set(names))


GERMAN = """Der Vertrag zwischen dem Lieferanten und dem Kunden beginnt am ersten Tag des Monats und endet nach drei
Jahren, es sei denn, einer von beiden kündigt ihn sechs Monate vorher schriftlich."""
FRENCH = """Le contrat entre le fournisseur et le client commence le premier jour du mois et se termine au bout de trois
ans, sauf si l'un des deux le résilie par écrit six mois auparavant."""
RUSSIAN = """Договор вступает в силу с первого дня месяца и действует три года, если одна из сторон не расторгнет его
письменно за шесть месяцев до окончания срока."""


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PARAGRAPHS[0], "eng"),
        (GERMAN, "deu"),
        (FRENCH, "fra"),
        (RUSSIAN, "rus"),
        ("この契約は三月一日に始まり、三年後に終わります。どちらの当事者も書面で通知することができます。", "jpn"),
        ("Too short.", "und"),
        ("4711 | 0815 | 1234567\n" * 50, "und"),
    ],
)
def test_the_language_is_found(text: str, language: str, tmp_path: Path) -> None:
    assert read_here(tmp_path, text.encode(), "note.txt").result["language"] == language
