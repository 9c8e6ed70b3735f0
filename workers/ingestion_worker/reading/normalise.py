"""Text as it is stored: composed, without what a database or a search cannot use, in paragraphs instead of lines."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["normalise"]

# PDFium marks a word divided at the end of a line with U+0002 or U+FFFE; others leave a soft hyphen.
DIVIDED = re.compile("[\x02\u00ad\ufffe][ \t]*\n[ \t]*")
# Controls (PostgreSQL refuses NUL), soft hyphens, zero-width spaces, directions that hide text, byte order marks.
NOISE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
SURROGATES = re.compile("[\ud800-\udfff]")
SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
LIGATURES = re.compile("[\ufb00-\ufb06]")
LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029\x0b]")
TRAILING = re.compile("[ \t]+(?=\n|$)")
BLANK_LINES = re.compile("\n{3,}")

# A line that begins like this stands by itself: headings, items, tables, quotations, code.
STRUCTURE = re.compile(r"[#>|`~•‣▪●◦\u2013\u2014*+·-]|\(?[0-9a-zA-Z]{1,3}[.)]\s|\s{2,}|\t")
# Lines shorter than this are lists and addresses, whatever the others look like.
SHORTEST_FULL_LINE = 25
# A line that reaches so far to the right ended because the paper did.
FULL = 0.75
# After a full stop only a line that reaches even farther goes on in the same paragraph.
NEARLY_WHOLE = 0.9


def normalise(text: str, *, wrapped: bool, preserve: bool = False) -> str:
    """Return the text as it is stored; `wrapped` lines are joined unless `preserve` says to leave the layout alone."""
    text = LINE_ENDS.sub("\n", text)
    if wrapped and not preserve:
        text = DIVIDED.sub("", text)
    text = SURROGATES.sub("\ufffd", NOISE.sub("", text))
    text = LIGATURES.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = unicodedata.normalize("NFC", TRAILING.sub("", SPACES.sub(" ", text)))
    if wrapped and not preserve:
        text = _unwrapped(text)
    return BLANK_LINES.sub("\n\n", text).strip("\n")


def _unwrapped(text: str) -> str:
    lines = text.split("\n")
    full = FULL * _usual_width(lines)
    if full < FULL * SHORTEST_FULL_LINE:
        return text
    joined = lines[:1]
    length = len(lines[0])  # Of the last line as it was, not of the paragraph it is part of by now.
    for line in lines[1:]:
        if (
            line
            and length >= full
            and not STRUCTURE.match(line)
            and not _ends_paragraph(joined[-1], line, length, full)
        ):
            joined[-1] = _join(joined[-1], line)
        else:
            joined.append(line)
        length = len(line) if not joined[-1].startswith(("#", "|")) else 0
    return "\n".join(joined)


def _usual_width(lines: list[str]) -> int:
    """Take the length that a fifth of the lines exceed: a single long line says nothing about the paper."""
    lengths = sorted(len(line) for line in lines if line)
    return lengths[len(lengths) * 4 // 5] if lengths else 0


def _ends_paragraph(before: str, after: str, length: int, full: float) -> bool:
    return before.endswith((".", "!", "?", ":")) and after[0].isupper() and length < full / FULL * NEARLY_WHOLE


def _join(before: str, after: str) -> str:
    if before.endswith("-") and before[-2:-1].islower() and after[0].islower():
        return before[:-1] + after
    if _is_wide(before[-1]) and _is_wide(after[0]):
        return before + after
    return f"{before} {after}"


def _is_wide(character: str) -> bool:
    """Tell Chinese and Japanese, which put no spaces between words."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"
