"""What is written by hand is read back by Python's parser as what went in."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications_worker.channels.mime import file_part, header, multipart, text_part

if TYPE_CHECKING:
    from email.message import EmailMessage

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)


def read(part: bytes) -> EmailMessage:
    return message_from_bytes(part, policy=policy.default)


def lines_of(part: bytes) -> list[bytes]:
    assert b"\n" not in part.replace(b"\r\n", b"")
    assert b"\r" not in part.replace(b"\r\n", b"")
    return part.split(b"\r\n")


@given(text=st.text() | st.text("\r\n.= \tabü\x00\x0c\x85\u2028😀", max_size=300) | st.text("x ", min_size=900))
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    part = text_part("plain", text)
    written = re.sub(r"\r\n|\r|\n", "\n", text)
    content = read(part).get_payload(decode=True)
    assert isinstance(content, bytes)

    assert content.decode().replace("\r\n", "\n") == (written if written.endswith("\n") else written + "\n")
    assert part.isascii()
    assert b"\x00" not in part
    assert all(len(line) <= 998 for line in lines_of(part))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Hello", "7bit"),
        ("x" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Grüße, " + "and a long plain text", "quoted-printable"),
        ("Привет, это письмо", "base64"),
        ("a\x00b", "base64"),
    ],
)
def test_a_text_is_as_readable_as_it_can_be(text: str, encoding: str) -> None:
    assert read(text_part("plain", text))["Content-Transfer-Encoding"] == encoding


@given(value=WORDS, utf8=st.booleans())
def test_a_header_is_read_as_it_was_written(value: str, utf8: bool) -> None:  # noqa: FBT001
    written = header("Subject", value, utf8=utf8)
    read_back = read(written + b"\r\n")["Subject"]

    assert len(read(written + b"X-Next: x\r\n\r\n").keys()) == 2
    assert "".join(read_back.split()) == "".join(value.split()) or "=?" in value
    assert written.endswith(b"\r\n")
    assert all(len(line) <= 998 for line in lines_of(written))
    assert utf8 or written.isascii()


@given(content=st.binary(max_size=500), filename=WORDS)
def test_a_file_is_read_as_it_was_written(content: bytes, filename: str) -> None:
    part = read(file_part(content, "application/pdf", filename))

    assert part.get_payload(decode=True) == content
    assert part.get_content_type() == "application/pdf"
    assert "".join((part.get_filename() or "").split()) == "".join(filename.split())


@given(texts=st.lists(st.text(max_size=50), min_size=1, max_size=4))
def test_parts_are_as_many_as_were_put_together(texts: list[str]) -> None:
    whole = multipart("mixed", "=_separator", [text_part("plain", text) for text in texts])

    assert len(list(read(whole).iter_parts())) == len(texts)
    assert lines_of(whole)[-2] == b"--=_separator--"


@pytest.mark.parametrize("value", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb", "\r\n\r\nbody"])
def test_no_value_becomes_another_header(value: str) -> None:
    with pytest.raises(ValueError):
        header("Subject", value)
