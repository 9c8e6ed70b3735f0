"""Who makes vectors of texts, behind one interface, and what follows when they are not made."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_runtime.outcome import DeadLetter, Defer, Hold, Retry

__all__ = ["Blame", "Embedder", "NotEmbedded", "Vector", "VectorUnusable", "unit_vector"]

Vector = list[float]


class Embedder(Protocol):
    """A model that makes vectors. Its methods may be called by many at once; cancelling one leaves it usable."""

    @property
    def provider(self) -> str:
        """Its name in settings, metrics and logs, and its circuit's."""
        ...

    @property
    def name(self) -> str:
        """What jobs may call the model beside `model`."""
        ...

    @property
    def model(self) -> str:
        """The model with its revision: vectors of two texts can be compared when this is the same."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Return a vector of length one for each text, all with as many numbers. Raises `NotEmbedded`.

        The same text has the same vector, whatever else is asked for beside it. Of a text that is longer than the model
        can read, the begin counts.
        """
        ...


class Blame(Enum):
    """What the circuit breaker of a provider is to learn."""

    NOBODY = "it works"
    PROVIDER = "it failed"
    CONFIGURATION = "no repetition helps until somebody changes something"


class NotEmbedded(Exception):
    """No vectors; the outcome says what becomes of the job. Its sentence holds nothing of the text."""

    def __init__(self, outcome: Retry | Defer | Hold | DeadLetter, blame: Blame) -> None:
        super().__init__(f"{outcome.code}: {outcome.reason}")
        self.outcome = outcome
        self.blame = blame


class VectorUnusable(Exception):
    """Nothing can be compared with it: a number that is none, or no direction."""


def unit_vector(numbers: Sequence[float]) -> Vector:
    """Return the vector of length one with that direction; raises `VectorUnusable`."""
    length = math.sqrt(sum(number * number for number in numbers))
    if not length or not math.isfinite(length):
        raise VectorUnusable("a vector without a direction")
    return [number / length for number in numbers]
