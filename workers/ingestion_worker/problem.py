"""What can be wrong with a document, and what becomes of its job then."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from worker_runtime.outcome import DeadLetter, Retry

if TYPE_CHECKING:
    from worker_runtime.outcome import Outcome

__all__ = ["DocumentError", "Problem"]

MOST_ATTEMPTS_OF_THE_UNLUCKY = 2


class Problem(StrEnum):
    """The code in front of `failedReason`. All but the last three say something that no repetition changes."""

    ENCRYPTED = "ENCRYPTED"
    CORRUPT = "CORRUPT"
    UNSUPPORTED = "UNSUPPORTED"
    TOO_LARGE = "TOO_LARGE"
    BOMB = "BOMB"
    EMPTY = "EMPTY"
    INFECTED = "INFECTED"
    TIMEOUT = "TIMEOUT"
    OOM = "OOM"
    CRASH = "CRASH"


# Another document, or a busy machine, may have had its part in these.
UNLUCKY = frozenset({Problem.TIMEOUT, Problem.OOM, Problem.CRASH})


class DocumentError(Exception):
    """A document could not be read. The sentence tells a person what to do and holds nothing of its content."""

    def __init__(self, problem: Problem, sentence: str) -> None:
        super().__init__(f"{problem}: {sentence}")
        self.problem = problem
        self.sentence = sentence

    def outcome(self, attempt: int) -> Outcome:
        """Return what becomes of the job in its attempt of that number, counted from 1."""
        if self.problem in UNLUCKY and attempt < MOST_ATTEMPTS_OF_THE_UNLUCKY:
            return Retry(self.problem, self.sentence)
        return DeadLetter(self.problem, self.sentence)
