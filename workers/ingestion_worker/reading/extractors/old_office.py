"""DOC, PPT and some XLS, by kreuzberg: binary formats for which nothing else small and permissive is kept up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.compound_file import with_whole_sectors
from ingestion_worker.reading.flow import NEW_PAGE, numbered, paged
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kreuzberg import ExtractionResult

    from ingestion_worker.reading.source import Source

__all__ = ["extract"]

# Names in kreuzberg's metadata, and what we call them.
PROPERTIES = {
    "title": "title",
    "authors": "author",
    "subject": "subject",
    "keywords": "keywords",
    "created_at": "created",
    "modified_at": "modified",
}
# Said of a file that ends where its last sector in use does. Word writes such, and others read them.
MISSING_ROOM = "Malformed FAT"


def extract(source: Source) -> Extracted:
    """Read a binary document. Slides are pages where kreuzberg tells them apart."""
    from kreuzberg import KreuzbergError  # noqa: PLC0415  70 ms, and most documents are none of these

    try:
        try:
            result = _read(source.path, source.media_type)
        except KreuzbergError as error:
            if MISSING_ROOM not in str(error):
                raise
            result = _read(with_whole_sectors(source.path), source.media_type)
    except KreuzbergError as error:
        raise _refusal(error) from error
    except BaseException as error:
        # What Rust panics with is no `Exception`, and has no name that could be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise _refusal(error) from error
    return Extracted(numbered(_texts(result, source.media_type)), dict(_properties(result.metadata)))


def _read(path: Path, media_type: str) -> ExtractionResult:
    from kreuzberg import ExtractionConfig, PageConfig, extract_file_sync  # noqa: PLC0415  as above

    config = ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format="markdown",
        pages=PageConfig(extract_pages=True),
    )
    return extract_file_sync(str(path), media_type, config)


def _refusal(error: BaseException) -> DocumentError:
    if "magic number" in str(error):
        return DocumentError(Problem.UNSUPPORTED, "the document is older than Word 97: save it as docx")
    if "encrypt" in str(error).lower() or "password" in str(error).lower():
        return DocumentError(Problem.ENCRYPTED, "the document is locked with a password: send it as options.password")
    return DocumentError(Problem.CORRUPT, "the document is damaged inside: export or upload it again")


def _texts(result: ExtractionResult, media_type: str) -> Iterator[str]:
    """Return pages: of a workbook its sheets, whose text kreuzberg leaves out of what it calls pages."""
    if media_type == types.XLS:
        return paged(_begun_by_headings(result.content.split("\n")), between="\n")
    pages = result.pages or []
    if media_type == types.PPT and len(pages) > 1:
        return (page["content"] for page in pages)
    return paged(result.content.split("\n\n"))


def _begun_by_headings(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number and line.startswith("## "):
            yield NEW_PAGE
        yield line


def _properties(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for theirs, ours in PROPERTIES.items():
        if value := found.get(theirs):
            yield ours, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
