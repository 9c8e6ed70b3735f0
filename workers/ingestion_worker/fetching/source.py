"""What every source of documents promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ingestion_worker.fetching.landing import Landing

__all__ = ["Origin", "Source"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source says about a document beside its bytes; hints, and nothing to rely on.

    `media_type` is in lower case and without parameters, `charset` as it was written, `name` that of a file.
    """

    name: str
    media_type: str | None = None
    charset: str | None = None


class Source(Protocol):
    """Where documents come from by one kind of URL. Called for many documents at once."""

    async def fetch(self, url: str, landing: Landing) -> Origin:
        """Hand the document's bytes to `landing`, in order.

        Does not block the event loop. Raises FetchFailed, and passes on what `landing` raises.
        """
