"""Work on files in threads, in steps short enough to be waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["finished"]

T = TypeVar("T")
# A file system that hangs holds up a cancellation for so long, and not for ever.
LONGEST_SECONDS = 0.5


async def finished(pool: Executor, step: Callable[..., T], *arguments: object) -> T:
    """Run a step in a thread and return its result.

    A cancelled caller waits for the end of the step before it goes on, so that no thread works on a folder that is
    being removed.
    """
    running = asyncio.get_running_loop().run_in_executor(pool, step, *arguments)
    try:
        await asyncio.wait({running})
    except asyncio.CancelledError:
        await asyncio.wait({running}, timeout=LONGEST_SECONDS)
        if not running.cancel():
            running.exception()  # Looked at, or asyncio would complain that nobody did.
        raise
    return running.result()
