"""What the engine does with a job once it has run: the queue's side of an outcome."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Complete:
    """To `completed`, with a JSON result."""

    result: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Fail:
    """To `failed`, the dead-letter queue. `attempts`: how many it had in all, or `None` if its own options say."""

    reason: str
    stack: str = ""
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """To `delayed` for `delay_ms` (0: behind the others in `wait` when it costs an attempt)."""

    delay_ms: int
    costs_attempt: bool
    stack: str = ""
    # Hash fields to write, by name: `failedReason` and the like.
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandBack:
    """To the head of `wait`, untouched; nothing is fetched for `hold_seconds`."""

    hold_seconds: float = 0.0


Settlement = Complete | Fail | Delay | HandBack
