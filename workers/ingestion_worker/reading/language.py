"""Which language a text is in, as ISO 639-3's three letters. Without a network, without a model to load.

The detector is whatlang, which comes inside kreuzberg: docs/adr/0006-who-reads-documents.md has the figures.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["UNDETERMINED", "Sample", "language_of"]

UNDETERMINED: Final = "und"
# Letters below which a guess is often wrong: nine in ten at 60, all but two in a hundred at 150.
FEWEST_LETTERS = 100
# Chinese, Japanese and Korean say in a letter what others say in a few.
FEWEST_WIDE_LETTERS = 20
WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Characters of a page, and of all of them, that are looked at: more make it no surer.
OF_A_PAGE = 1_000
OF_ALL = 8_000
NOT_LANGUAGE = re.compile(r"https?://\S+|\S+@\S+|[|#*_`<>\[\]\d-]+")


class Sample:
    """The beginnings of the first pages."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, page: str) -> None:
        """Take of a page what is needed."""
        if len(self._text) < OF_ALL and page:
            self._text += NOT_LANGUAGE.sub(" ", page[:OF_A_PAGE]) + "\n"

    @property
    def text(self) -> str:
        """All that was taken."""
        return self._text


def language_of(sample: Sample) -> str:
    """Return `eng`, `deu`... or `und` for too few letters to tell."""
    letters = sum(map(str.isalpha, sample.text))
    if letters < FEWEST_LETTERS and len(WIDE.findall(sample.text)) < FEWEST_WIDE_LETTERS:
        return UNDETERMINED
    from kreuzberg import ExtractionConfig, LanguageDetectionConfig, extract_bytes_sync  # noqa: PLC0415  70 ms

    wanted = LanguageDetectionConfig(enabled=True, min_confidence=0.0, detect_multiple=False)
    config = ExtractionConfig(use_cache=False, language_detection=wanted)
    found = extract_bytes_sync(sample.text.encode(), "text/plain", config).detected_languages
    return found[0] if found else UNDETERMINED
