"""Finds out which handler blocks the event loop: a thread that misses the loop's beat looks where the loop is.

Nothing can run beside a handler that does not await - no lease is renewed, no other job goes on - so whoever wrote it
must hear of it, by the name of the job and the line it was at.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import structlog

from worker_runtime.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from worker_runtime.job import Job
    from worker_runtime.loops import Heartbeat
    from worker_runtime.metrics import Metrics

log = structlog.get_logger()

LOOK_EVERY_SECONDS = 0.1
BLOCKED_SECONDS = 0.5
# A process that is killed for being blocked has said why before.
TELL_AFTER_SECONDS = 2.0
STOP_SECONDS = 1.0
MOST_CALLS = 6
# On the event loop's stack, what is inward of this one is the handler.
RUNS_THE_HANDLER = Consumer._within_limits.__code__  # noqa: SLF001  looked for, not called


@dataclass(frozen=True, slots=True)
class Culprit:
    """Where the event loop was found: in the handler of `job`, if in any, and there at the end of `calls`."""

    calls: tuple[str, ...]
    job: Job[Any] | None = None

    def as_fields(self) -> dict[str, Any]:
        """Write it as a log line's fields."""
        fields: dict[str, Any] = {"where": " > ".join(self.calls)}
        if self.job is not None:
            fields |= {
                "queue": self.job.queue,
                "jobId": self.job.id,
                "jobName": self.job.name,
                "attempt": self.job.attempt,
            }
        return fields


class LoopGuard:
    """Watches the beat of the event loop it is entered on."""

    def __init__(self, beat: Heartbeat, metrics: Metrics) -> None:
        self._beat = beat
        self._metrics = metrics
        self._closed = threading.Event()
        self._guarded = 0

    @contextmanager
    def on_guard(self) -> Iterator[None]:
        """Watch the calling thread's event loop for the length of the block."""
        self._guarded = threading.get_ident()
        # The context of the caller, for what it has bound to every log line.
        watch = contextvars.copy_context().run
        thread = threading.Thread(target=watch, args=(self._watch,), name="loop guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join(STOP_SECONDS)

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_EVERY_SECONDS):
            if self._beat.age_seconds >= BLOCKED_SECONDS:
                where = sys._current_frames()[self._guarded]  # noqa: SLF001  documented, whatever its name
                self._sit_out(find_culprit(where))

    def _sit_out(self, culprit: Culprit) -> None:
        """Follow one block to its end; told when it is over, and before that if it lasts."""
        told, seconds = False, 0.0
        while (age := self._beat.age_seconds) >= seconds and not self._closed.wait(LOOK_EVERY_SECONDS):
            seconds = age
            if seconds >= TELL_AFTER_SECONDS and not told:
                told = True
                log.warning("event_loop_blocked", seconds=round(seconds, 1), over=False, **culprit.as_fields())
        self._metrics.event_loop_blocked(culprit.job.queue if culprit.job else None, seconds)
        log.warning("event_loop_blocked", seconds=round(seconds, 1), over=True, **culprit.as_fields())


def find_culprit(innermost: FrameType) -> Culprit:
    """Say what runs in a thread: the calls a handler has made, from itself to the innermost, or else the last few."""
    stack = list(traceback.walk_stack(innermost))
    calls = [f"{PurePath(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}" for frame, line in stack]
    for depth, (frame, _) in enumerate(stack):
        if frame.f_code is RUNS_THE_HANDLER:
            return Culprit(shortened(calls[:depth]), frame.f_locals["job"])
    return Culprit(shortened(calls))


def shortened(calls: list[str]) -> tuple[str, ...]:
    """Turn a stack outermost first, keeping its ends."""
    outward = calls[::-1]
    return tuple(outward if len(outward) <= MOST_CALLS else [*outward[:2], "...", *outward[-3:]])
