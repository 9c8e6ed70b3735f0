"""The stages of a document, each a verb: fetch -> scan -> read (identify, guard, extract, normalise) -> chunk.

What is large stays in the working folder of the document; from stage to stage go only words about it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.records import Content, Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ingestion_worker.attempt import Stopwatch
    from ingestion_worker.fetching.fetch import Fetched, Fetcher
    from ingestion_worker.isolation.isolation import Isolation
    from ingestion_worker.jobs import ExtractionOptions
    from ingestion_worker.scanning import Scanner
    from ingestion_worker.settings import IngestionSettings

__all__ = ["Pipeline", "Wish", "shown_source"]

# Part of every fingerprint: raised when what comes out of the same document changes by our own doing.
VERSION = 1
MOST_WARNINGS, LONGEST_WARNING = 10, 500
READERS = ("kreuzberg", "pypdfium2", "pytesseract")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a job wants its document read."""

    format: str | None
    language: str | None
    options: ExtractionOptions


class Pipeline:
    """What the handlers of the queues have in common."""

    def __init__(self, settings: IngestionSettings, fetcher: Fetcher, scanner: Scanner, isolation: Isolation) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._scanner = scanner
        self.isolation = isolation
        self._cutting = {
            "model": settings.embedding_model or settings.embedding_provider,
            "tokens": settings.embedding_chunk_tokens,
            "overlap": settings.embedding_chunk_overlap,
        }
        reading_scans = (settings.ocr_engine, settings.ocr_dpi) if settings.enable_ocr else None
        self._made_of = [VERSION, *map(version, READERS), self._cutting, reading_scans]

    def fingerprint(self, wish: Wish) -> str:
        """Return what tells this pipeline from one that would make something else of the same bytes."""
        options = wish.options.model_dump(mode="json", exclude={"password", "generate_embeddings"})
        # Whoever has the file need not have its password: what one read with it is not for one without.
        options["locked"] = wish.options.password is not None
        made_of = json.dumps([self._made_of, wish.format, wish.language, options], sort_keys=True)
        return hashlib.sha256(made_of.encode()).hexdigest()[:32]

    async def fetch(self, url: str, folder: Path, watch: Stopwatch) -> Fetched:
        """Bring a document into its folder, and have it looked through for malware."""
        with watch.timed("fetch"):
            fetched = await self._fetcher.fetch(url, folder)
        with watch.timed("scan"):
            await self._scanner.scan(fetched.path)
        return fetched

    def content(self, fetched: Fetched, wish: Wish) -> Content:
        """Return what is to be read, and by whom."""
        return Content(fetched.sha256, fetched.size, self.fingerprint(wish))

    async def read(
        self,
        fetched: Fetched,
        wish: Wish,
        folder: Path,
        watch: Stopwatch,
        on_progress: Callable[[int, int], None],
    ) -> tuple[Reading, int]:
        """Write the pages of a document into its folder; return what it is, and how many pages need OCR."""
        options = wish.options
        order = {
            "format": wish.format,
            "name": fetched.name,
            "mediaType": fetched.media_type,
            "charset": fetched.charset,
            "password": options.password.get_secret_value() if options.password else None,
            "language": wish.language,
            "ocr": options.ocr,
            "preserveFormatting": options.preserve_formatting,
            "extractMetadata": options.extract_metadata,
            "maxCharacters": self._settings.document_max_characters,
            "maxPages": self._settings.document_max_pages,
        }
        with watch.timed("extract"):
            result = await self.isolation.run("read", order, folder, on_progress=on_progress)
        return reading_of(result), _number(result, "ocrPages")

    async def chunk(self, folder: Path, watch: Stopwatch) -> int:
        """Cut the pages of a folder into chunks; return how many."""
        return _number(await self._cut(folder, watch, describe=False), "chunks")

    async def chunk_and_describe(self, reading: Reading, folder: Path, watch: Stopwatch) -> tuple[int, Reading]:
        """Do the same for pages to which OCR has added, and return what there is to say of their text now."""
        result = await self._cut(folder, watch, describe=True)
        language, characters = str(result.get("language"))[:64], _number(result, "characters")
        return _number(result, "chunks"), replace(reading, language=language, characters=characters)

    async def _cut(self, folder: Path, watch: Stopwatch, *, describe: bool) -> dict[str, Any]:
        with watch.timed("chunk"):
            return await self.isolation.run("chunk", self._cutting | {"describe": describe}, folder)


def reading_of(result: dict[str, Any]) -> Reading:
    """Read what a child said: nobody knows under whose control it was."""
    metadata = result.get("metadata")
    return Reading(
        media_type=str(result.get("mediaType"))[:255],
        language=str(result.get("language"))[:64],
        pages=_number(result, "pages"),
        characters=_number(result, "characters"),
        metadata=(metadata if isinstance(metadata, dict) else {}) | _warnings(result),
    )


def _warnings(result: dict[str, Any]) -> dict[str, list[str]]:
    """Return what of the document was left unread, to be kept beside what is known of it."""
    said = result.get("warnings")
    warnings = [str(one)[:LONGEST_WARNING] for one in said[:MOST_WARNINGS]] if isinstance(said, list) else []
    return {"warnings": warnings} if warnings else {}


def _number(result: dict[str, Any], name: str) -> int:
    value = result.get(name)
    if not isinstance(value, int) or value < 0:
        raise DocumentError(Problem.CRASH, f"the process that read the document told no {name}")
    return value


def shown_source(url: str) -> str:
    """Return a URL as it may be kept and shown: its login, query and fragment may be secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
