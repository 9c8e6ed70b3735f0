"""Which charset the bytes of an RTF are in: the one of the font they are set in, or the document's."""

from __future__ import annotations

from ingestion_worker.reading.charset import known_charset

__all__ = ["SYMBOLS", "charset_of_font", "charset_of_page"]

# Windows' numbers of fonts' charsets.
OF_FONTS = {
    0: "cp1252",
    77: "mac-roman",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gb18030",
    136: "big5hkscs",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
    254: "cp437",
    255: "cp850",
}
# Pictures instead of letters: only their bullets are worth anything.
SYMBOLS, OF_SYMBOLS = "symbols", 2
UTF_8, MAC_ROMAN = 65001, 10000


def charset_of_font(number: int) -> str | None:
    """Return the charset that a font says it has; `None`: the document's."""
    return SYMBOLS if number == OF_SYMBOLS else OF_FONTS.get(number)


def charset_of_page(number: int) -> str | None:
    """Return the charset for the number of a code page; `None` for one that nobody knows."""
    named = {UTF_8: "utf-8", MAC_ROMAN: "mac-roman"}
    return named.get(number) or known_charset(f"cp{number}")
