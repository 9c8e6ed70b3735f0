"""The worker's end of a child's pipe. Nothing that comes through it can block the worker or make it grow."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ingestion_worker.isolation.ending import Said
from ingestion_worker.isolation.wire import FrameReader, Garbled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Listener"]

BLOCK_BYTES = 65_536
# A child of ours says something ten times a second; one that says much more is no longer ours.
PAUSE_SECONDS = 0.02
MOST_FRAMES_A_BLOCK = 1024
MOST_TOTAL = 1 << 53


class Listener:
    """Hears a child out. `settled` is done when it has said its last word, or garbage."""

    def __init__(self, on_progress: Callable[[int, int], None] | None) -> None:
        self.said = Said()
        self._loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[None] = self._loop.create_future()
        self._pipe, self._far_end = os.pipe()
        self._on_progress = on_progress
        self._frames = FrameReader()
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._hear)

    @contextmanager
    def lent(self) -> Iterator[int]:
        """Yield the child's end of the pipe, to be handed over within the block."""
        try:
            yield self._far_end
        finally:
            os.close(self._far_end)
            self._far_end = -1

    def close(self) -> None:
        """Hear what is still in the pipe, and no more."""
        self._listen_no_more()
        while not self.settled.done() and self._read():
            pass
        os.close(self._pipe)
        if self._far_end >= 0:
            os.close(self._far_end)

    def _hear(self) -> None:
        self._loop.remove_reader(self._pipe)
        if self._read() and not self.settled.done():
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._loop.add_reader, self._pipe, self._hear)

    def _read(self) -> bool:
        """Read a block; false when there is nothing."""
        try:
            data = os.read(self._pipe, BLOCK_BYTES)
        except BlockingIOError:
            return False
        try:
            self._take(self._frames.feed(data))
        except Garbled:
            self.said.garbled = True
            self._settle()
        return bool(data)

    def _take(self, frames: list[dict[str, Any]]) -> None:
        """Pass on the latest progress; stop at the last word."""
        if len(frames) > MOST_FRAMES_A_BLOCK:
            raise Garbled
        progress = None
        for frame in frames:
            if "progress" in frame:
                progress = read_progress(frame)
            else:
                self.said.last_word = frame
                self._settle()
                break
        if progress and self._on_progress:
            self._on_progress(*progress)

    def _settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)

    def _listen_no_more(self) -> None:
        self._loop.remove_reader(self._pipe)
        if self._pause:
            self._pause.cancel()


def read_progress(frame: dict[str, Any]) -> tuple[int, int]:
    """Return how much is done, and of how much. Raises `Garbled`."""
    match frame:
        case {"progress": [int(done), int(total)]} if 0 <= done <= total <= MOST_TOTAL:
            return done, total
    raise Garbled
