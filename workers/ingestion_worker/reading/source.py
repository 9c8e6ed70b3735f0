"""What an extractor is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ingestion_worker.document import Page

__all__ = ["Extracted", "Extractor", "OcrMode", "Source"]

OcrMode = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was identified and found safe to open.

    `charset` is what the sender said it is, `depth` how many mails it came wrapped in. An extractor may write only to
    `folder`, under names of its own making.
    """

    path: Path
    media_type: str
    folder: Path
    password: str | None = None
    charset: str | None = None
    language: str | None = None
    ocr: OcrMode = "auto"
    preserve: bool = False
    max_pages: int = 10_000
    depth: int = 0


@dataclass(slots=True)
class Extracted:
    """The pages, one at a time, and what is known beside them.

    `metadata` and `warnings` may grow until the last page was taken. `wrapped`: ends of lines are where the paper ended
    and not where the author wanted one, so that they are taken out of paragraphs. `total` is how many pages there will
    be, where that is known before.
    """

    pages: Iterator[Page]
    metadata: dict[str, str | int | float | bool] = field(default_factory=dict)
    warnings: Iterable[str] = field(default_factory=list)
    wrapped: bool = False
    total: int = 0


# Raises `DocumentError` at once or while pages are taken; whatever else its libraries raise for a broken file must be
# among `broken.BROKEN`.
Extractor = Callable[[Source], Extracted]
