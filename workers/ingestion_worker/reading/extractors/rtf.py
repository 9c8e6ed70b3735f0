"""RTF: paragraphs, tables, headings and lists; every letter in the charset of its font."""

from __future__ import annotations

import mmap
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.extractors import rtf_words as words
from ingestion_worker.reading.extractors.rtf_charsets import SYMBOLS, charset_of_font, charset_of_page
from ingestion_worker.reading.extractors.rtf_flow import Flow
from ingestion_worker.reading.flow import numbered, paged
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestion_worker.reading.source import Source

__all__ = ["blocks_of_rtf", "extract"]

TOKEN = re.compile(
    rb"\\([A-Za-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^A-Za-z'])|([{}])|[\r\n\0]+|([^\\{}\r\n\0]{1,65536})",
    re.DOTALL,
)
# Pictures and fonts are megabytes of digits.
NOTHING_TO_OBEY = re.compile(rb"[^\\{}]+")
# Real documents stay below 100.
DEEPEST = 5_000
LONGEST_PROPERTY = 2_000
HIGHEST_UNIT, HIGHEST_ASCII = 0x10000, 0x80
MOST_FONTS = 10_000


def extract(source: Source) -> Extracted:
    """Read an RTF paragraph by paragraph."""
    properties: dict[str, str | int | float | bool] = {}
    with source.path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Extracted(numbered(paged(blocks_of_rtf(content, properties))), properties)


def blocks_of_rtf(
    content: bytes | mmap.mmap, properties: dict[str, str | int | float | bool] | None = None
) -> Iterator[str]:
    """Yield headings, paragraphs and tables; fill in what the document says about itself. Raises BOMB."""
    reader = _Reader(content)
    for _ in reader.read():
        yield from reader.body.taken()
    yield from reader.body.finished()
    yield from reader.below()
    if properties is not None:
        properties.update(reader.properties())


class _Group(NamedTuple):
    """What holds until a group ends."""

    kind: str = words.TEXT
    hidden: bool = False
    font: int | None = None
    fallback: int = 1  # Characters after a Unicode one that repeat it for old programs.


class _Reader:
    """Follows groups and control words."""

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self.body = Flow()
        self._content = content
        self._group = _Group()
        self._outer: list[tuple[_Group, Flow]] = []
        self._flow = self.body
        self._notes: list[Flow] = []
        self._footers: list[Flow] = []
        self._charset, self._default_font, self._listed_font = "cp1252", 0, 0
        self._charsets: dict[int, str] = {}
        self._bytes = bytearray()
        self._repeated = 0
        self._starred = False
        self._said: dict[str, str] = defaultdict(str)
        self._times: dict[str, dict[str, int]] = defaultdict(dict)

    def read(self) -> Iterator[None]:
        """Read all of it, and yield when there are blocks."""
        at = 0
        while found := TOKEN.match(self._content, at):
            at = found.end()
            word, number, byte, sign, brace, text = found.groups()
            if text or byte:
                self._take(text or bytes.fromhex(byte.decode()))
            elif brace:
                self._begin() if brace == b"{" else self._end()
            elif sign:
                self._obey_sign(sign)
            elif word == b"bin":
                at += max(int(number or 0), 0)
            elif word:
                self._obey(word.decode(), int(number) if number else None)
            if self._group.kind in (words.OUT, words.AGAIN) and (digits := NOTHING_TO_OBEY.match(self._content, at)):
                at = digits.end()
            if self.body.has_blocks:
                yield
        self._flush()

    def below(self) -> Iterator[str]:
        """Yield footnotes and what stands at the foot of pages, once."""
        yield from dict.fromkeys(block for flow in (*self._notes, *self._footers) for block in flow.finished())

    def properties(self) -> dict[str, str]:
        """Return what the document says about itself."""
        found = {words.PROPERTIES[name]: text.strip() for name, text in self._said.items() if text.strip()}
        for name, parts in self._times.items():
            if parts.get("yr"):
                date = "-".join(f"{parts.get(part, 1):02}" for part in ("yr", "mo", "dy"))
                found[words.TIMES[name]] = f"{date}T{parts.get('hr', 0):02}:{parts.get('min', 0):02}"
        return found

    def _take(self, data: bytes) -> None:
        if self._repeated:
            skipped = min(self._repeated, len(data))
            self._repeated -= skipped
            data = data[skipped:]
        self._bytes += data

    def _flush(self) -> None:
        """Turn the bytes so far into text: before anything that is none, or that changes their charset."""
        if self._bytes:
            data, self._bytes = bytes(self._bytes), bytearray()
            font = self._default_font if self._group.font is None else self._group.font
            charset = self._charsets.get(font, self._charset)
            self._put(bulleted(data) if charset == SYMBOLS else data.decode(charset, "replace"))

    def _put(self, text: str) -> None:
        kind = self._group.kind
        if kind in words.PROPERTIES:
            self._said[kind] = (self._said[kind] + text)[:LONGEST_PROPERTY]
        elif kind in words.READABLE and not self._group.hidden:
            self._flow.add(text)

    def _begin(self) -> None:
        self._flush()
        self._repeated = 0
        if len(self._outer) > DEEPEST:
            raise DocumentError(Problem.BOMB, f"its groups are nested more than {DEEPEST} deep")
        self._outer.append((self._group, self._flow))

    def _end(self) -> None:
        self._flush()
        self._repeated, self._starred = 0, False
        if not self._outer:
            return
        kind, flow = self._group.kind, self._flow
        self._group, self._flow = self._outer.pop()
        if kind == self._group.kind:
            return
        if kind in words.MARKS:
            self._flow.mark(" ".join(flow.finished()))
        elif kind in words.HEADERS:
            self.body.say_once(flow.finished())
        elif kind in words.FOOTERS:
            self._footers.append(flow)
        elif kind == "footnote":
            self._notes.append(flow)
        elif kind == words.TEXT:
            self._flow.end_paragraph()

    def _obey_sign(self, sign: bytes) -> None:
        if sign == b"*":
            self._starred = True
        elif sign in b"\r\n":
            self._obey("par", None)
        elif sign in words.SIGNS:
            self._character(words.SIGNS[sign])

    def _character(self, character: str) -> None:
        if self._repeated:
            self._repeated -= 1
        else:
            self._flush()
            self._put(character)

    def _obey(self, word: str, number: int | None) -> None:
        starred, self._starred = self._starred, False
        if word == "u":
            self._flush()
            self._put(chr((number or 0) % HIGHEST_UNIT))
            self._repeated = self._group.fallback
            return
        kind = self._kind_of_group(word, starred=starred)
        if kind:
            self._enter(kind)
        elif self._group.kind == words.FONTS:
            self._list_font(word, number or 0)
        elif self._group.kind in words.TIMES:
            self._times[self._group.kind][word] = number or 0
        elif word in words.CHARACTERS:
            self._character(words.CHARACTERS[word])
        else:
            self._flush()
            self._repeated = 0
            self._set(word, number)

    def _kind_of_group(self, word: str, *, starred: bool) -> str | None:
        """Return what the group is that begins with this word, if that is something of its own."""
        kind = self._group.kind
        entered: str | None = None
        if kind == words.AGAIN or word in words.SAID_AGAIN:
            entered = words.AGAIN
        elif word == "ud":  # The same in Unicode as stands in front of it, within a group for both.
            entered = self._outer[-2][0].kind if len(self._outer) > 1 else words.TEXT
        elif word in words.STARTS:
            entered = words.STARTS[word]
        elif kind == words.OUT and (word in words.PROPERTIES or word in words.TIMES):
            entered = word
        elif starred or word in words.LEFT_OUT:
            entered = words.OUT
        elif kind in words.READABLE and word in words.APART:
            entered = word
        return entered

    def _enter(self, kind: str) -> None:
        self._flush()
        self._group = self._group._replace(kind=kind)
        if kind in words.APART:
            self._flow = Flow()
        elif kind == words.TEXT:
            self._flow.end_paragraph()

    def _list_font(self, word: str, number: int) -> None:
        if word == "f":
            self._listed_font = number
        elif word in ("fcharset", "cpg"):
            charset = charset_of_font(number) if word == "fcharset" else charset_of_page(number)
            if charset and len(self._charsets) < MOST_FONTS:
                self._charsets[self._listed_font] = charset

    def _set(self, word: str, number: int | None) -> None:
        """Take a word about how what follows is written or laid out."""
        group = self._group
        if word == "f":
            self._group = group._replace(font=number)
        elif word == "uc":
            self._group = group._replace(fallback=max(number or 0, 0))
        elif word in ("v", "deleted"):
            self._group = group._replace(hidden=number != 0)
        elif word == "plain":
            self._group = group._replace(font=None, hidden=False)
        elif word in words.DOCUMENT_CHARSETS:
            self._charset = words.DOCUMENT_CHARSETS[word]
        elif word == "ansicpg":
            self._charset = charset_of_page(number or 0) or self._charset
        elif word == "deff":
            self._default_font = number or 0
        elif group.kind in words.READABLE:
            self._flow.obey(word, number)


def bulleted(data: bytes) -> str:
    """Return the text of a font of symbols: what is no letter in it is mostly a bullet."""
    return "".join(chr(byte) if byte < HIGHEST_ASCII else "\u2022" for byte in data)
