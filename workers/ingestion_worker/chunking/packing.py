"""Fills chunks with as large units of text as fit: paragraphs and tables, else sentences and rows, else words.

A chunk belongs to one section: every heading begins a new one. A unit that does not fit begins the next chunk when this
one is at least half full; else its parts fill the rest. A sentence, or a row, is cut only where it is longer than a
chunk, or would leave its heading behind alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ingestion_worker.chunking.blocks import Kind, blocks
from ingestion_worker.chunking.parts import Part, Room
from ingestion_worker.chunking.sentences import phrases, rows, sentences, words
from ingestion_worker.document import Chunk
from ingestion_worker.embeddings.wordpiece import SPECIAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ingestion_worker.chunking.blocks import Block
    from ingestion_worker.document import Page
    from ingestion_worker.embeddings.wordpiece import WordPiece

__all__ = ["MOST_BYTES", "Packer"]

# No tokenizer of bytes makes more tokens of a text than it has bytes, and the services take 8,191. Text of which one
# token has more bytes than this is a word that no model knows.
MOST_BYTES, BYTES_PER_TOKEN = 8_191, 16
DEEPEST_HEADING = 6
# The header that each part of a table begins with is never more than this share of a chunk.
HEADER_SHARE = 4
FINER = {sentences: phrases, rows: phrases, phrases: words, words: None}
Split = Callable[[str], Iterator[str]]


class Packer:
    """Makes chunks of at most `tokens` tokens, special ones included, that repeat at most `overlap` of the last one.

    Only whole sentences are repeated, and only within a section; a table that is cut repeats its header instead. Tokens
    are counted by `model`. A service that counts otherwise never finds more than `MOST_BYTES` of them.
    """

    def __init__(self, model: WordPiece, *, tokens: int, overlap: int) -> None:
        self._model = model
        self._whole = Room(tokens - SPECIAL_TOKENS, min(MOST_BYTES, tokens * BYTES_PER_TOKEN))
        self._overlap = overlap
        self._parts: list[Part] = []
        self._left = self._whole
        self._header: Part | None = None
        self._headings: dict[int, str] = {}
        self._ready: list[Chunk] = []
        self._made = 0

    def chunks(self, pages: Iterable[Page]) -> Iterator[Chunk]:
        """Yield the chunks of a document; never holds more than a page and a chunk. To be called once."""
        for block in blocks(pages):
            self._add_block(block)
            yield from self._taken()
        self._close(carry=False)
        yield from self._taken()

    def _taken(self) -> list[Chunk]:
        ready, self._ready = self._ready, []
        return ready

    def _add_block(self, block: Block) -> None:
        if block.kind is Kind.HEADING:
            self._enter_section(block)
        self._header = None
        self._add(self._part(block.text, block), sentences if block.kind is not Kind.TABLE else rows)
        self._header = None

    def _enter_section(self, heading: Block) -> None:
        if any(part.kind is not Kind.HEADING for part in self._parts):
            self._close(carry=False)
        above = {level: title for level, title in self._headings.items() if level < heading.level}
        self._headings = above | {heading.level: heading.title}

    def _part(self, text: str, block: Block) -> Part:
        return Part(text, block.page, self._measured(text), block.kind)

    def _measured(self, text: str) -> Room:
        if len(text) > self._whole.bytes:
            return Room(sys.maxsize, sys.maxsize)  # It will be split: its tokens need not be counted.
        return Room(self._model.count(text), len(text) if text.isascii() else len(text.encode()))

    def _add(self, part: Part, split: Split | None) -> None:
        """Add a unit whole, here or to the next chunk, or else what `split` makes of it (nothing: it is a word)."""
        if self._has_room(part):
            self._put(part)
        elif self._whole.fits(part.takes) and self._may_end_before(split):
            self._close()
            self._make_room(part)
            self._put(part)
        elif split is not None:
            self._add_parts(part, split)
        else:
            self._add_in_slices(part)

    def _may_end_before(self, split: Split | None) -> bool:
        """Tell whether the next chunk should begin with a unit, rather than this one be filled with its parts."""
        if split is phrases:
            return any(part.kind is not Kind.HEADING and not part.repeated for part in self._parts)
        return split is None or self._is_half_full

    def _add_parts(self, whole: Part, split: Split) -> None:
        is_sentence = split in {sentences, rows}
        for number, text in enumerate(split(whole.text)):
            takes, begins = self._measured(text), whole.begins and not number
            part = Part(text, whole.page, takes, whole.kind, begins, is_sentence)
            self._add(part, FINER[split])
            if split is rows:
                self._note_header(part, number)

    def _note_header(self, row: Part, number: int) -> None:
        """Remember the names of the columns, if they are named and few enough to be repeated."""
        if number == 0:
            self._header = self._header_of(row)
        elif number == 1 and self._header:
            is_ruled = not row.text.strip("|-: \t\n")
            self._header = self._header_of(row._replace(text=self._header.text + row.text)) if is_ruled else None

    def _header_of(self, rows_: Part) -> Part | None:
        takes = self._measured(rows_.text)
        share = Room(self._whole.tokens // HEADER_SHARE, self._whole.bytes // HEADER_SHARE)
        return rows_._replace(takes=takes, begins=True, repeated=True) if share.fits(takes) else None

    def _add_in_slices(self, word: Part) -> None:
        """Add a word that is longer than a chunk: each slice ends one, for only then its tokens are what they seem."""
        if self._is_half_full:
            self._close()
        start = 0
        while start < len(word.text):
            begins = word.begins and not start
            text = self._start_that_fits(word.text[start : start + self._whole.bytes], word._replace(begins=begins))
            self._put(word._replace(text=text, takes=self._measured(text), begins=begins, whole=False))
            start += len(text)
            if start < len(word.text):
                self._close()

    def _start_that_fits(self, word: str, like: Part) -> str:
        """Return about as much of a long word as there is room for, in a part like that."""

        def fits(text: str) -> bool:
            return self._has_room(like._replace(takes=self._measured(text)))

        # Three characters a token is what words without sense have; a single character has at most four tokens.
        found, most = "", 3 * self._left.tokens
        while len(found) < len(word) and fits(word[:most]):
            found, most = word[:most], 2 * most
        for fewer in (2, 1, 0.25):
            if found:
                break
            found = word[: int(fewer * self._left.tokens)]
            found = found if fits(found) else ""
        return found or word[0]

    @property
    def _is_half_full(self) -> bool:
        return 2 * self._left.tokens <= self._whole.tokens or 2 * self._left.bytes <= self._whole.bytes

    @property
    def _is_empty_but_for_repeats(self) -> bool:
        return all(part.repeated for part in self._parts)

    def _has_room(self, part: Part) -> bool:
        return self._left.fits(self._with_break(part))

    def _with_break(self, part: Part) -> Room:
        return part.takes._replace(bytes=part.takes.bytes + 2) if part.begins and self._parts else part.takes

    def _put(self, part: Part) -> None:
        takes = self._with_break(part)
        self._parts.append(part)
        self._left = Room(self._left.tokens - takes.tokens, self._left.bytes - takes.bytes)

    def _make_room(self, part: Part) -> None:
        """Drop of what would be repeated as much, from the front, as it takes."""
        repeated = self._parts
        while repeated and not self._has_room(part):
            repeated = repeated[1:]
            self._begin_with(repeated)

    def _begin_with(self, parts: list[Part]) -> None:
        self._parts, self._left = [], self._whole
        for part in parts:
            self._put(part)

    def _close(self, *, carry: bool = True) -> None:
        """End the chunk, and begin the next one with what is to be repeated of it (nothing unless `carry`)."""
        parts = self._parts
        if not self._is_empty_but_for_repeats:
            self._ready.append(self._chunk(parts))
        if self._header is not None:
            self._begin_with([self._header])
        else:
            self._begin_with(self._repeated(parts) if carry else [])

    def _chunk(self, parts: list[Part]) -> Chunk:
        self._made += 1
        texts = ("\n\n" + part.text if part.begins and number else part.text for number, part in enumerate(parts))
        return Chunk(
            number=self._made,
            text="".join(texts).rstrip(),
            tokens=SPECIAL_TOKENS + sum(part.takes.tokens for part in parts),
            first_page=parts[0].page,
            last_page=parts[-1].page,
            headings=tuple(self._headings[level] for level in sorted(self._headings)[:DEEPEST_HEADING]),
        )

    def _repeated(self, parts: list[Part]) -> list[Part]:
        """Return the last whole sentences that are no more than the overlap."""
        found: list[Part] = []
        left = self._overlap
        # What takes no token (a lone accent) would always fit.
        for part in reversed(parts if left else ()):
            if part.kind is not Kind.PARAGRAPH or part.repeated or not part.whole:
                break
            for sentence in reversed(self._sentences_of(part)):
                left -= sentence.takes.tokens
                if left < 0:
                    return found[::-1]
                found.append(sentence)
        return found[::-1]

    def _sentences_of(self, part: Part) -> list[Part]:
        texts = list(sentences(part.text))
        return [
            part._replace(text=text, takes=self._measured(text), begins=part.begins and not number, repeated=True)
            for number, text in enumerate(texts)
        ]
