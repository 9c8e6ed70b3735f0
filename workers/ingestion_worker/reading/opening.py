"""From a file whose kind is known to its pages: unlocked, then read by who knows the format."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.compound_file import LOCKED
from ingestion_worker.reading.extractors import extractor_of
from ingestion_worker.reading.identify import identify
from ingestion_worker.reading.unlocking import unlocked

if TYPE_CHECKING:
    from ingestion_worker.reading.source import Extracted, Source

__all__ = ["opened"]


def opened(source: Source) -> tuple[Source, Extracted]:
    """Return the document's pages, and where they come from if that is another file by now."""
    if source.media_type in (LOCKED, types.DOC, types.XLS, types.PPT):
        source = _unlocked(source)
    return source, extractor_of(source.media_type)(source)


def _unlocked(source: Source) -> Source:
    path = unlocked(source)
    if path is None:
        return source
    media_type = identify(path, (), None).media_type
    if media_type == LOCKED:
        raise DocumentError(Problem.ENCRYPTED, "the document is locked twice: send it unlocked")
    return replace(source, path=path, media_type=media_type)
