"""Which charset bytes are in, and who said so: byte order mark > sender > escapes > strict UTF-8 > guess > cp1252."""

from __future__ import annotations

import codecs
import io
import re
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Charset", "charset_of", "charset_of_bytes", "decoded", "known_charset", "pieces_of"]

# Bytes looked at for a guess, and decoded at once.
SAMPLE = 65_536
PIECE = 1_048_576

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What senders call by a smaller name than what they send, as browsers read it (https://encoding.spec.whatwg.org/).
WIDER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
# Codecs that turn bytes into text, and no more: Python calls `idna`, `unicode_escape` or `utf-7` codecs as well.
OF_TEXT = re.compile(
    r"(utf-(8|16|32)|cp\d|iso8859|koi8|mac-|euc_|shift_|gb|big5|iso2022|johab|hz|tis-|ascii|kz1048|ptcp154)"
)
# How texts in seven bits begin their other letters.
ESCAPED = {b"\x1b$)C": "iso2022_kr", b"\x1b$@": "iso2022_jp_2", b"\x1b$B": "iso2022_jp_2", b"\x1b$(D": "iso2022_jp_2"}
ESCAPE = re.compile(b"|".join(map(re.escape, ESCAPED)))
# A file that was cut in the middle of a letter, or joined from two, is still what almost all of it is.
FEW = 0.02


class Charset(NamedTuple):
    """A codec's name, and where it is known from."""

    name: str
    known_from: str


def known_charset(label: str | None) -> str | None:
    """Return the codec that a sender's label stands for, or `None`."""
    try:
        name = codecs.lookup((label or "").strip().strip("'\"")).name
    except (LookupError, ValueError):
        return None
    return WIDER.get(name, name) if OF_TEXT.match(name) else None


def charset_of(path: Path, declared: Iterable[tuple[str, str | None]] = ()) -> Charset:
    """Return the charset of a file. `declared` are labels with who gave them, the most trusted first."""
    with path.open("rb") as file:
        return _charset_of(file, declared)


def charset_of_bytes(content: bytes, declared: Iterable[tuple[str, str | None]] = ()) -> Charset:
    """Do the same for bytes."""
    return _charset_of(io.BytesIO(content), declared)


def decoded(content: bytes, declared: Iterable[tuple[str, str | None]] = ()) -> str:
    """Return bytes as text in the charset they seem to be in."""
    return content.decode(charset_of_bytes(content, declared).name, "replace")


def pieces_of(path: Path, charset: Charset) -> Iterator[str]:
    """Yield a file's text; what is no letter in that charset becomes U+FFFD."""
    with path.open("rb") as file:
        yield from _pieces(file, charset.name, "replace")


def _charset_of(file: IO[bytes], declared: Iterable[tuple[str, str | None]]) -> Charset:
    sample = file.read(SAMPLE)
    for mark, name in BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return Charset(name, "byte order mark")
    for who, label in declared:
        name_declared = known_charset(label)
        if name_declared and _fits(file, name_declared):
            return Charset(name_declared, who)
    if (escaped := _escaped(sample)) and _fits(file, escaped):
        return Charset(escaped, "escape sequences")
    if _fits(file, "utf-8") and b"\0" not in sample:
        return Charset("utf-8", "strict UTF-8")
    return _guess(file, sample)


def _escaped(sample: bytes) -> str | None:
    """Return the charset that switches between alphabets by this sample's first escape: to UTF-8 it is ASCII."""
    found = ESCAPE.search(sample)
    return ESCAPED[found[0]] if found else None


def _guess(file: IO[bytes], sample: bytes) -> Charset:
    if wide := _utf_16_without_mark(sample):
        return Charset(wide, "guess")
    if _is_mostly_utf8(sample):
        return Charset("utf-8", "mostly UTF-8")
    name = _detected(sample)
    if name and _fits(file, name):
        return Charset(name, "guess")
    return Charset("cp1252", "last resort")


def _fits(file: IO[bytes], name: str) -> bool:
    file.seek(0)
    try:
        for _ in _pieces(file, name, "strict"):
            pass
    except UnicodeError:
        return False
    return True


def _pieces(file: IO[bytes], name: str, errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(name)(errors)
    while piece := file.read(PIECE):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _utf_16_without_mark(sample: bytes) -> str | None:
    """Take it for UTF-16 when every other byte of Latin text is NUL, which no other charset writes."""
    pairs = len(sample) // 2
    if not pairs:
        return None
    odd, even = sample[1::2].count(0), sample[0::2].count(0)
    if odd > pairs * 0.4 and even < pairs * 0.05:
        return "utf-16-le"
    return "utf-16-be" if even > pairs * 0.4 and odd < pairs * 0.05 else None


def _is_mostly_utf8(sample: bytes) -> bool:
    text = sample.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return bad < FEW * (len(sample) - len(text.encode("ascii", "ignore"))) / 2


def _detected(sample: bytes) -> str | None:
    # Imported late: most documents say what they are.
    from charset_normalizer import from_bytes  # noqa: PLC0415

    best = from_bytes(sample, steps=5, chunk_size=1024, cp_isolation=[*GUESSES]).best()
    name = known_charset(best.encoding) if best else None
    return name if name and not _is_rather_western(name, sample) else None


# What browsers know, and DOS: left to itself, the detector takes short texts for charsets that nobody has used since.
GUESSES = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("iso8859_2", "iso8859_5", "iso8859_7", "iso8859_8", "iso8859_15", "koi8_r", "koi8_u", "cp850", "cp866"),
    *("cp932", "euc_jp", "iso2022_jp", "gb18030", "big5hkscs", "cp949"),
)
# Charsets of the Latin alphabet, among which the detector errs for short texts.
LATIN = frozenset({"cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "iso8859-2", "iso8859-15", "cp850"})
# What Polish, Turkish and Baltic letters look like in cp1252: signs within words.
SIGN_IN_WORD = re.compile(
    "[a-z][\u00a3\u00a5\u00af\u00b3\u00b6\u00b9\u00bc\u00be\u00bf]|[\u00a3\u00af\u00b3\u00b6\u00b9\u00bc\u00be\u00bf][a-z]|\u00f0"
)
# What Czech and Hungarian ones do: letters that no language has together.
TOGETHER = (frozenset("\u00ec\u00f8"), frozenset("\u00e8\u00f8"), frozenset("\u00f5\u00fb"), frozenset("\u00f5\u00f6"))


def _is_rather_western(name: str, sample: bytes) -> bool:
    """Tell German or French that the detector took for a neighbour's: cp1252 is a hundred times as frequent."""
    if name not in LATIN:
        return False
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters = set(text)
    return not SIGN_IN_WORD.search(text) and not any(strange <= letters for strange in TOGETHER)
