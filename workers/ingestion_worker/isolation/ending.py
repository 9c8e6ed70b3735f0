"""What the end of a child means for the document that it read."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from ingestion_worker.isolation.task import Limits
    from ingestion_worker.isolation.wire import Ended

__all__ = ["Said", "result_of"]

LONGEST_SENTENCE = 1000
MEBIBYTE = 1 << 20
# Memory that grows by doubling is refused with half of the limit in use.
NEAR_THE_LIMIT = 0.4
# How native code ends that was refused memory: by intent, or by using what it did not get.
REFUSED_MEMORY = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP}


@dataclass(slots=True)
class Said:
    """What a child has told: its last word, if it came to one, and whether what it wrote was of the right form."""

    last_word: dict[str, Any] | None = None
    garbled: bool = False


def result_of(ended: Ended, said: Said, limits: Limits, *, overtime: bool) -> dict[str, Any]:
    """Return what the task returned, or raise the `DocumentError` that says why it did not."""
    if overtime:
        raise DocumentError(Problem.TIMEOUT, f"it was not done after {limits.seconds:g} s")
    if said.garbled:
        raise DocumentError(Problem.CRASH, "the process that read it wrote garbage")
    match said.last_word:
        case {"done": dict(result)}:
            return result
        case {"failed": [str(code), str(sentence)]} if code in Problem.__members__:
            raise DocumentError(Problem(code), sentence[:LONGEST_SENTENCE])
        case None:
            raise silent_end(ended, limits)
        case _:
            raise DocumentError(Problem.CRASH, "the process that read it wrote garbage")


def silent_end(ended: Ended, limits: Limits) -> DocumentError:
    """Name the end of a child without a last word, that nobody here had killed."""
    if ended.status is None:
        return DocumentError(Problem.CRASH, "the process that was to read it could not be started, or was lost")
    if ended.status >= 0:
        return DocumentError(Problem.CRASH, f"the process that read it ended without a result (exit {ended.status})")
    number = -ended.status
    if number == signal.SIGXCPU or (number == signal.SIGKILL and ended.cpu_seconds >= limits.seconds):
        return DocumentError(Problem.TIMEOUT, f"it was not done after {limits.seconds:g} s of computing")
    if number == signal.SIGXFSZ:
        return DocumentError(Problem.TOO_LARGE, f"a file made of it is larger than {limits.file_bytes // MEBIBYTE} MiB")
    if number == signal.SIGKILL or (
        number in REFUSED_MEMORY and ended.peak_bytes >= NEAR_THE_LIMIT * limits.memory_bytes
    ):
        return DocumentError(Problem.OOM, f"it takes more memory than {limits.memory_bytes // MEBIBYTE} MiB")
    return DocumentError(Problem.CRASH, f"the process that read it was ended by {name_of(number)}")


def name_of(number: int) -> str:
    """Return the name of a signal; of most real-time ones it is a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
