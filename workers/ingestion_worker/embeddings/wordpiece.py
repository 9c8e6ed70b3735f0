"""BERT's WordPiece as all-MiniLM-L6-v2 has it: without case and accents, in pure Python.

The usual library brings a client of a model hub along. This gives the same ids, with one difference that is meant: text
that spells a special token (`[SEP]`) is text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SPECIAL_TOKENS", "WordPiece", "uncased"]

VOCABULARY = Path(__file__).parent / "vocabulary" / "uncased.txt"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
UNKNOWN, BEGIN, END = "[UNK]", "[CLS]", "[SEP]"
# What is put around every text.
SPECIAL_TOKENS = 2
# A longer word is unknown, whatever it consists of.
LONGEST_WORD = 100
# Words of more characters are not worth remembering, nor are more words than these.
LONGEST_REMEMBERED, MOST_REMEMBERED = 48, 65_536

# Control characters that Python takes for white space and BERT drops.
NOT_SPACE = re.compile(r"[\x0b\x0c\x1c-\x1f\x85]")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Within a word of ASCII: a punctuation character, or what is between two.
ASCII_PARTS = re.compile(r"[!-/:-@\[-`{-~]|[^!-/:-@\[-`{-~]+")
ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
# Written without spaces: every character is a word.
IDEOGRAPHS = (
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820),
    range(0x2B920, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
)


class WordPiece:
    """Cuts text into the pieces of a vocabulary. May be used by several threads at once."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._words = _Words(vocabulary)
        self._begin, self._end = vocabulary[BEGIN], vocabulary[END]

    def count(self, text: str) -> int:
        """Return how many tokens the text is, without the special ones.

        Of two texts with white space between them it is the sum.
        """
        return sum(map(len, map(self._words.__getitem__, NOT_SPACE.sub("", text).split())))

    def encode(self, text: str, most: int) -> list[int]:
        """Return the first ids of the text, at most `most` with the special ones."""
        ids = [self._begin]
        for word in NOT_SPACE.sub("", text).split():
            ids += self._words[word]
            if len(ids) >= most:
                break
        return [*ids[: most - 1], self._end]


class _Words(dict[str, tuple[int, ...]]):
    """The pieces of words, found out when a word is first asked for."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._longest_piece = max(map(len, vocabulary))
        self._unknown = (vocabulary[UNKNOWN],)

    def __missing__(self, word: str) -> tuple[int, ...]:
        found = tuple(piece for part in parts_of(word) for piece in self._pieces(part))
        if len(word) <= LONGEST_REMEMBERED:
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[word] = found
        return found

    def _pieces(self, part: str) -> tuple[int, ...]:
        """Take the longest piece that fits, again and again."""
        if (piece := self._vocabulary.get(part)) is not None:
            return (piece,)
        if len(part) > LONGEST_WORD:
            return self._unknown
        found, start = [], 0
        while start < len(part):
            end, piece = self._longest(part, start)
            if piece is None:
                return self._unknown
            found.append(piece)
            start = end
        return tuple(found)

    def _longest(self, part: str, start: int) -> tuple[int, int | None]:
        prefix = "##" if start else ""
        for end in range(min(len(part), start + self._longest_piece), start, -1):
            if (piece := self._vocabulary.get(prefix + part[start:end])) is not None:
                return end, piece
        return start, None


def parts_of(word: str) -> list[str]:
    """Split what stands between two spaces at punctuation and ideographs, in small letters without accents."""
    if word.isascii():
        return ASCII_PARTS.findall(CONTROL.sub("", word).lower())
    return unicodedata.normalize("NFD", word.translate(_KEPT)).translate(_BARE).split()


@cache
def uncased() -> WordPiece:
    """Return the one of all-MiniLM-L6-v2. Raises ValueError when the vocabulary is not the one that was shipped."""
    content = VOCABULARY.read_bytes()
    if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
        raise ValueError(f"{VOCABULARY} is not the vocabulary that this version came with: install it anew")
    return WordPiece({piece: number for number, piece in enumerate(content.decode().splitlines())})


class _Table(dict[int, str]):
    """What `str.translate` makes of characters, found out when one is first met."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = written = self._rule(chr(code))
        return written


def _kept(character: str) -> str:
    if character == "\ufffd" or unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs"}:
        return ""
    return f" {character} " if any(ord(character) in block for block in IDEOGRAPHS) else character


def _bare(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Mn":
        return ""
    # One by one: the small letter of a sigma would otherwise depend on what follows it.
    small = character.lower()
    return f" {small} " if character in ASCII_PUNCTUATION or category.startswith("P") else small


_KEPT, _BARE = _Table(_kept), _Table(_bare)
