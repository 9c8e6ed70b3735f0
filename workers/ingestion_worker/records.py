"""What is kept of documents, and the right to write it.

A job that begins takes the document's *claim*; whoever began later has it from then on, and what an earlier one still
writes is refused. So a frozen worker, or a job that was given to two, leaves nothing behind.

A job that goes on with what another has read, as OCR does, takes no claim from anybody: it may write for as long as the
document is of that very content and not yet read to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ingestion_worker.document import Page

__all__ = [
    "Claim",
    "Content",
    "DocumentKey",
    "Documents",
    "Known",
    "LostClaim",
    "Origin",
    "Reading",
    "RecordsUnavailable",
]

State = Literal["reading", "awaiting_ocr", "read", "failed"]


class LostClaim(Exception):
    """Another job has begun with this document since: nothing of this one is kept."""


class RecordsUnavailable(Exception):
    """The place where documents are kept cannot be reached now."""


@dataclass(frozen=True, slots=True)
class DocumentKey:
    """One tenant's document."""

    tenant_id: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document came from; `source` has no login, query or fragment."""

    source: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Claim:
    """One attempt's right to write a document, from when it has begun until another begins.

    With `content` the right to go on with that alone, which does not end when another begins.
    """

    origin: Origin
    content: Content | None = None
    token: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes, and who read them how: the same both times is the same work. `pipeline` is a fingerprint."""

    sha256: bytes
    size: int
    pipeline: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is to say about all pages of a document together."""

    media_type: str
    language: str
    pages: int
    characters: int
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """A document as it is kept. `chunks` is `None` until it has been cut; `embedding_model` until it is embedded."""

    state: State
    content: Content | None
    reading: Reading | None
    chunks: int | None = None
    embedding_model: str | None = None


class Documents(Protocol):
    """Every method raises `RecordsUnavailable`; those with a claim raise `LostClaim`, and then have done nothing."""

    async def begin(self, key: DocumentKey, claim: Claim) -> Known | None:
        """Take the claim of a document, and return what was known of it; what was read before stays for now.

        A claim to go on with a content takes nothing, and raises `LostClaim` when the document is of another.
        """
        ...

    async def adopt(self, key: DocumentKey, claim: Claim, content: Content) -> Known | None:
        """Take over pages and chunks of another document of the tenant with this content, if there is one."""
        ...

    async def keep(self, key: DocumentKey, claim: Claim, content: Content, reading: Reading, folder: Path) -> None:
        """Replace everything by the pages in a folder, and its chunks; without chunks the document awaits OCR."""
        ...

    async def keep_page(self, key: DocumentKey, claim: Claim, page: Page) -> None:
        """Replace one page."""
        ...

    async def pictures(
        self, key: DocumentKey, claim: Claim, numbers: Sequence[int] | None, folder: Path, *, anew: bool = False
    ) -> Sequence[Page]:
        """Return the pages with these numbers; without numbers those whose pictures are still to be read.

        `anew`: those that an earlier attempt has read as well. May write `PAGES` of the folder.
        """
        ...

    async def export_pages(self, key: DocumentKey, claim: Claim, folder: Path) -> None:
        """Write all pages to the file `PAGES` of a folder."""
        ...

    async def finish(self, key: DocumentKey, claim: Claim, reading: Reading, folder: Path) -> None:
        """Replace the chunks by those in a folder: the document is read."""
        ...

    async def note_problem(
        self, key: DocumentKey, claim: Claim, problem: str, explanation: str, *, final: bool
    ) -> None:
        """Write down why a document was not read; what was read of it before stays."""
        ...
