"""Which charset won, and that the text is right, in plain text, HTML, tables and mail."""

# ruff: noqa: RUF001  letters of many scripts are the point

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from bounded_reading import read_here
from ingestion_worker.reading.charset import charset_of_bytes, known_charset

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {
    "cp1252": "Der Vertrag über die „Lieferung“ gilt für drei Jahre – außer im März. Größe: 3 €, Café, naïve Übung.",
    "latin-1": "Le contrat a été signé à la fin du mois; où que vous soyez, la réponse est déjà prête, garçon.",
    "cp1251": "Договор вступает в силу с первого дня месяца и действует три года, если стороны не решат иначе.",
    "shift_jis": "この契約は三月一日に始まり、三年後に終わります。どちらの当事者も書面で通知することができます。",
    "gb18030": "本合同自三月一日起生效，有效期为三年，除非任何一方提前六个月书面通知对方终止合同。",
    "utf-16": "Договор, Vertrag, 契約: alles in einem Text.",
    "utf-8": "Договор, Vertrag, 契約: alles in einem Text.",
    "iso2022_jp": "この契約は三月一日に始まり、 three years 後に終わります。",
    "iso2022_kr": "이 계약은 삼월 일일에 시작하여 three years 후에 끝납니다.",
    "cp1250": "Smlouva začíná prvním dnem měsíce a končí po třech letech, pokud nikdo nepožádá o změnu. Žluťoučký kůň.",
}
CHARSETS = pytest.mark.parametrize("charset", TEXTS)


@CHARSETS
def test_text_that_does_not_say_is_guessed(charset: str, tmp_path: Path) -> None:
    text = TEXTS[charset]

    ending = read_here(tmp_path, text.encode(charset), "note.txt")

    assert ending.texts == [text]


@CHARSETS
def test_html_says_it_itself(charset: str, tmp_path: Path) -> None:
    page = f"<meta http-equiv='Content-Type' content='text/html; charset={charset}'><p>{TEXTS[charset]}"

    ending = read_here(tmp_path, page.encode(charset), "page.html")

    assert ending.texts == [TEXTS[charset]]


@CHARSETS
def test_a_table_is_decoded(charset: str, tmp_path: Path) -> None:
    cell = TEXTS[charset].replace(";", "")
    table = f"nr;text\n1;{cell}\n2;{cell}\n"

    ending = read_here(tmp_path, table.encode(charset), "table.csv")

    assert ending.texts == [f"| nr | text |\n| --- | --- |\n| 1 | {cell} |\n| 2 | {cell} |"]


@CHARSETS
def test_a_part_of_a_mail_is_decoded(charset: str, tmp_path: Path) -> None:
    body = base64.encodebytes(TEXTS[charset].encode(charset))
    head = f"From: a@example.com\nSubject: x\nContent-Type: text/plain; charset={charset}\n"
    head += "Content-Transfer-Encoding: base64\n\n"

    ending = read_here(tmp_path, head.encode() + body, "mail.eml")

    assert TEXTS[charset] in ending.texts[0]


@pytest.mark.parametrize(
    ("content", "declared", "name", "known_from"),
    [
        (b"\xef\xbb\xbfabc", "cp1251", "utf-8-sig", "byte order mark"),
        ("Ärger".encode("utf-16"), "utf-8", "utf-16", "byte order mark"),
        ("Ärger".encode(), "cp1251", "cp1251", "sender"),
        ("Ärger".encode(), "no-such", "utf-8", "strict UTF-8"),
        ("Ärger".encode("cp1252"), "utf-8", "cp1252", "last resort"),
        (b"plain", "iso-8859-1", "cp1252", "sender"),
        ("Ärger, Größe ".encode() * 50 + b"\xff", None, "utf-8", "mostly UTF-8"),
        ("latin without mark".encode("utf-16-le"), None, "utf-16-le", "guess"),
    ],
)
def test_who_is_believed(content: bytes, declared: str | None, name: str, known_from: str) -> None:
    assert charset_of_bytes(content, [("sender", declared)]) == (name, known_from)


@pytest.mark.parametrize("label", ["idna", "unicode_escape", "utf-7", "rot13", "hex", "zip", "undefined", "", "\0"])
def test_codecs_that_are_no_charsets_are_not_used(label: str) -> None:
    assert known_charset(label) is None


def test_what_won_is_recorded(tmp_path: Path) -> None:
    ending = read_here(tmp_path, TEXTS["cp1251"].encode("cp1251"), "note.txt", charset="windows-1251")

    assert ending.result["metadata"] == {"charset": "cp1251", "charsetFrom": "sender"}
