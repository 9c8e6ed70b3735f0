"""What a chunk is put together from, and how much of it there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ingestion_worker.chunking.blocks import Kind

__all__ = ["Part", "Room"]


class Room(NamedTuple):
    """Tokens and bytes: what a text takes, or what is left for more."""

    tokens: int
    bytes: int

    def fits(self, other: Room) -> bool:
        """Tell whether the other has room here."""
        return other.tokens <= self.tokens and other.bytes <= self.bytes


class Part(NamedTuple):
    """A unit within a chunk, with the white space after it."""

    text: str
    page: int
    takes: Room
    kind: Kind
    # The first of its block: what is before it ends with an empty line.
    begins: bool = True
    # Ends a sentence; may be repeated at the begin of the next chunk.
    whole: bool = True
    # Stood in the chunk before.
    repeated: bool = False
