"""What strangers' headers and URLs say a document is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion_worker.fetching.names import charset_of, file_name, media_type_of, name_of, name_of_url


@pytest.mark.parametrize(
    ("content_type", "media_type", "charset"),
    [
        ("application/pdf", "application/pdf", None),
        ("Text/HTML; charset=UTF-8", "text/html", "UTF-8"),
        ("text/html;charset='windows-1251' ; x=y", "text/html", "windows-1251"),
        ('text/csv; header=present; charset="iso-8859-15"', "text/csv", "iso-8859-15"),
        (" application/vnd.ms-excel.sheet.macroEnabled.12 ", "application/vnd.ms-excel.sheet.macroenabled.12", None),
        ("image/svg+xml", "image/svg+xml", None),
        ("text", None, None),
        ("text/", None, None),
        ("text/html, application/pdf", None, None),
        ("text/html\x00", None, None),
        ("", None, None),
        (None, None, None),
        ("; charset=utf-8", None, "utf-8"),
        ("text/plain; charset=" + "x" * 99, "text/plain", "x" * 40),
    ],
)
def test_a_content_type(content_type: str | None, media_type: str | None, charset: str | None) -> None:
    assert (media_type_of(content_type), charset_of(content_type)) == (media_type, charset)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.pdf", "a.pdf"),
        ("/x/y/a.pdf", "a.pdf"),
        ("C:\\Users\\ada\\a.pdf", "a.pdf"),
        ("../..", ""),
        (".", ""),
        ("  ", ""),
        ("a\nb\x00.pdf", "ab.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
        ("x." + "y" * 300, "x." + "y" * 253),
    ],
)
def test_the_name_of_a_file(text: str, name: str) -> None:
    assert file_name(text) == name


@pytest.mark.parametrize(
    ("disposition", "answered", "asked", "name"),
    [
        (None, "https://h/a.pdf?x=/b.doc", "https://h/", "a.pdf"),
        (None, "https://h/blob/7", "https://h/files/a%20b.pdf", "a b.pdf"),
        (None, "https://h/blob/7/", "https://h/", "7"),
        (None, "https://h/", "https://h", "document"),
        ('attachment; filename="a.pdf"', "https://h/b.doc", "https://h/c.doc", "a.pdf"),
        ("attachment; filename=report", "https://h/b.doc", "https://h/c", "b.doc"),
        ("attachment; filename=report", "https://h/b", "https://h/c", "report"),
        ("attachment; filename*=UTF-8''na%C3%AFve.pdf", "https://h/", "https://h/", "naïve.pdf"),
        ("attachment; filename*=no-such-charset''a.pdf", "https://h/", "https://h/", "a.pdf"),
        ("attachment; filename*=UTF-8''%ff%fe.pdf", "https://h/", "https://h/", "\ufffd\ufffd.pdf"),
        ('attachment; filename="../../../etc/passwd"', "https://h/", "https://h/", "passwd"),
        ("attachment; filename*0=a; filename*1=b.pdf", "https://h/", "https://h/", "ab.pdf"),
        ("nonsense;;;=", "https://h/a.pdf", "https://h/", "a.pdf"),
    ],
)
def test_a_documents_name(disposition: str | None, answered: str, asked: str, name: str) -> None:
    assert name_of(disposition, answered, asked) == name


@given(st.text(), st.text())
def test_a_name_is_always_one_of_a_file(disposition: str, path: str) -> None:
    path = path.replace("[", "").replace("]", "")
    for name in (name_of(disposition, "https://h/" + path, ""), name_of(f"attachment; filename{disposition}", "", "")):
        assert 0 < len(name) <= 255
        assert not {"/", "\\", "\0", "\n"} & set(name)
        assert name not in {".", ".."}


@given(st.text())
def test_headers_that_are_none_say_nothing_and_break_nothing(text: str) -> None:
    media_type_of(text)
    charset_of(text)
    name_of_url("https://h/" + text.replace("[", "").replace("]", ""))
