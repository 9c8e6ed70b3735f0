"""RTF by its words: letters of any charset, tables, lists, notes, and what is not text at all."""

from __future__ import annotations

import pytest

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.extractors.rtf import blocks_of_rtf

FONTS = (
    rb"{\fonttbl{\f0\fnil\fcharset0 Arial;}{\f1\fnil\fcharset238 Arial CE;}{\f2\fnil\fcharset204 Arial Cyr;}"
    rb"{\f3\fnil\fcharset128 MS Mincho;}{\f4\fnil\fcharset2 Symbol;}}"
)


def read(body: bytes, head: bytes = rb"\rtf1\ansi\ansicpg1252\deff0") -> list[str]:
    return list(blocks_of_rtf(b"{" + head + FONTS + body + b"}"))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"\f0 caf\'e9", "café"),
        (rb"\f1 \'c8l\'e1nek t\'fddne", "Článek týdne"),
        (rb"\f2 \'d3\'e2\'e0\'e6\'e0\'e5\'ec\'fb\'e9!", "Уважаемый!"),
        (rb"\f3 \'83\'5d\'83\'8b\'83\'51", "ゾルゲ"),
        (rb"{\f1 \'e8}{\f2 \'e8}\'e8", "čиè"),
        (rb"\f4\'b7\f0  item", "• item"),
        (rb"\u268?\u1103\'df.", "Čя."),
        (rb"\uc2\u24565\'94\'4f end", "念 end"),
        (rb"\uc0\u-10179\u-9216", "🐀"),
        (rb"a\emdash b\~c\_d\-e\{\}\\", "a\u2014b\u00a0c-de{}\\"),
    ],
)
def test_letters_are_in_the_charset_of_their_font(body: bytes, text: str) -> None:
    assert read(body) == [text]


def test_the_document_s_charset_is_that_of_fonts_without_one() -> None:
    assert list(blocks_of_rtf(rb"{\rtf1\ansi\ansicpg1251{\fonttbl{\f0 Arial;}}\f0 \'df}")) == ["Я"]


def test_tables_lists_and_headings_are_markdown() -> None:
    rows = (
        rb"\trowd\pard\intbl Rent\cell 980\cell\row\trowd\pard\intbl Deposit\cell two\par rents\cell\row\pard after\par"
    )
    head = rb"\pard\outlinelevel1 Terms\par\pard{\listtext\'b7\tab}keys\par{\listtext 2.\tab}heating\par "
    assert read(head + rows) == [
        "## Terms",
        "- keys",
        "2. heating",
        "| Rent | 980 |\n| --- | --- |\n| Deposit | two rents |",
        "after",
    ]


def test_what_is_no_text_is_left_out_and_what_stands_beside_it_is_not() -> None:
    body = (
        rb"{\*\hyphen2\hyphlead2}{\pict\wmetafile8 0123abcd}{\header Letterhead\par}{\footer Page}"
        rb"{\field{\*\fldinst HYPERLINK \"http://x\"}{\fldrslt our site}}{\footnote See there.} has it.{\v secret}\par"
        rb"{\shp{\*\shpinst{\sp{\sn a}{\sv b}}{\shptxt boxed\par}}{\shprslt{\*\do\dptxbx{\dptxbxtext boxed\par}}}}"
        rb"{\pict\bin4 }}{{}{\*\unknown nothing{\deeper}}The end."
    )
    assert read(body) == ["Letterhead", "our site has it.", "boxed", "The end.", "See there.", "Page"]


def test_pages_and_properties() -> None:
    properties: dict[str, str | int | float | bool] = {}
    title = rb"{\title {\upr{M?ller}{\*\ud{\uc0 M\u252 ller}}}}"
    info = rb"{\info" + title + rb"{\author Ada}{\creatim\yr2024\mo3\dy1\hr9}{\operator Bob}}"
    assert list(blocks_of_rtf(b"{\\rtf1" + info + rb"one\page two}", properties)) == ["one", "\f", "two"]
    assert properties == {"title": "Müller", "author": "Ada", "created": "2024-03-01T09:00"}


def test_nesting_without_end_is_a_bomb() -> None:
    with pytest.raises(DocumentError) as raised:
        read(b"{" * 10_000)
    assert raised.value.problem == Problem.BOMB


@pytest.mark.parametrize(
    "body", [b"}}}}", b"\\", b"\\'4", b"{\\bin99999999 x", b"\\u99999999999 y", b"\\cell\\row\\row"]
)
def test_what_is_broken_breaks_nothing(body: bytes) -> None:
    assert "before" in "".join(read(b"before\\par " + body))
