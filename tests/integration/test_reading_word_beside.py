"""What a Word document says beside its text: in comments, in drawings, in documents pasted as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bounded_reading import read_bounded
from hostile_documents import RELATION, W, docx_of, open_xml, paragraph
from ingestion_worker.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
PAGE = b"<html><body><h1>Offer</h1><table><tr><td>Bolt</td><td>0.25</td></tr></table></body></html>"
WEB_ARCHIVE = (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary="b"\r\n\r\n--b\r\n'
    b"Content-Type: text/html\r\nContent-Location: file:///C:/fake/document.html\r\n\r\n" + PAGE + b"\r\n--b--\r\n"
)


def docx_with(kind: str, part: str, content: str | bytes, text: str = "The text.") -> bytes:
    relations = f'<Relationships><Relationship Id="r1" Type="{RELATION}/{kind}" Target="{part}"/></Relationships>'
    return open_xml(
        "word/document.xml",
        "wordprocessingml.document",
        f"<w:document {W}><w:body>{paragraph(text) if text else ''}</w:body></w:document>",
        {"word/_rels/document.xml.rels": relations, f"word/{part}": content},
    )


def test_comments_follow_the_text(tmp_path: Path) -> None:
    comments = f"<w:comments {W}><w:comment>{paragraph('Ask the lawyer.')}</w:comment></w:comments>"

    ending = read_bounded(tmp_path, docx_with("comments", "comments.xml", comments), "a.docx")

    assert ending.texts == ["The text.\n\nAsk the lawyer."]


def test_drawings_follow_the_text(tmp_path: Path) -> None:
    drawing = f'<d xmlns:a="{DRAWING}"><a:p><a:r><a:t>Plan</a:t></a:r></a:p><a:p><a:r><a:t>Build</a:t></a:r></a:p></d>'

    ending = read_bounded(tmp_path, docx_with("diagramData", "diagrams/data1.xml", drawing), "a.docx")

    assert ending.texts == ["The text.\n\nPlan\n\nBuild"]


def test_a_pasted_page_is_read(tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, docx_with("aFChunk", "page.html", PAGE, text=""), "a.docx")

    assert ending.texts == ["# Offer\n\n| Bolt | 0.25 |\n| --- | --- |"]


def test_a_pasted_web_archive_is_read(tmp_path: Path) -> None:
    ending = read_bounded(tmp_path, docx_with("aFChunk", "page.mht", WEB_ARCHIVE), "a.docx")

    assert "# Offer\n\n| Bolt | 0.25 |" in ending.texts[0]


def test_documents_pasted_into_each_other_without_end_are_a_bomb(tmp_path: Path) -> None:
    content = docx_of(paragraph("deep"))
    for _ in range(8):
        content = docx_with("aFChunk", "inner.docx", content)

    assert read_bounded(tmp_path, content, "a.docx").how == Problem.BOMB
