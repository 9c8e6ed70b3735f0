"""A job as a claim of it found it, and what else Redis answers a claim with."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# A job's id and the how manyth of its claims it is, as Redis writes both.
Claim = tuple[bytes, bytes]
LARGEST_INTEGER = 2**53


@dataclass(slots=True)
class ClaimedJob:
    """A job as its Redis hash says, locked by us. Values are raw bytes until somebody needs them."""

    id: bytes
    fields: dict[bytes, bytes]
    options: Mapping[str, Any] = field(init=False)
    # Finished attempts so far.
    attempts_made: int = field(init=False)
    # The producer's clock when it was added, seconds since the epoch.
    created_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.options = read_options(self.fields.get(b"opts", b"{}"))
        self.attempts_made = read_integer(self.fields.get(b"atm", b"0"))
        self.created_at = read_integer(self.fields.get(b"timestamp", b"0")) / 1000

    def __str__(self) -> str:
        """Return the id as people write it."""
        return self.id.decode("utf-8", "backslashreplace")

    @property
    def claim(self) -> Claim:
        """Which claim of the job this is."""
        return self.id, self.fields.get(b"ats", b"")

    @property
    def name(self) -> str:
        """The producer's name for it; not part of any promise, so wrong bytes are shown as such."""
        return self.fields.get(b"name", b"").decode("utf-8", "backslashreplace")


class Answer(NamedTuple):
    """What Redis said when asked for the next job: a job, or how long to wait and for what; `asked`: whether it was."""

    code: int = 0
    job: ClaimedJob | None = None
    limited_ms: int = 0
    next_delayed_ms: int = 0
    asked: bool = True


NOTHING = Answer()
NOTHING_ASKED = Answer(asked=False)


@functools.lru_cache(maxsize=1024)
def read_options(raw: bytes) -> Mapping[str, Any]:
    """Read a job's `opts`; producers repeat a few shapes, hence the cache. Unreadable options count as none."""
    try:
        options = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return options if isinstance(options, dict) else {}


def read_integer(raw: Any) -> int:
    """Read a number somebody else wrote; one that is none, or beyond what JavaScript counts to, is 0."""
    try:
        number = int(raw)
    except (TypeError, ValueError, OverflowError):
        try:
            number = int(float(raw))
        except (TypeError, ValueError, OverflowError):
            return 0
    return number if -LARGEST_INTEGER <= number <= LARGEST_INTEGER else 0


def read_answer(raw: Any) -> Answer:
    """Read `[fields, id, limitMs, nextDelayedMs]`, or the number a settling script answers with."""
    if isinstance(raw, int):
        return Answer(code=raw) if raw < 0 else NOTHING
    if not raw:
        return NOTHING
    fields, job_id, *rest = raw
    if fields:
        values = iter(fields)
        return Answer(job=ClaimedJob(job_id, dict(zip(values, values, strict=True))))
    return Answer(limited_ms=int(rest[0]), next_delayed_ms=int(rest[1])) if len(rest) > 1 else NOTHING
