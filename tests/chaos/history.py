"""What happened, told by those who did it: one file that writers, handlers and the bringer of faults append to.

It is no part of the system under test and survives whatever that suffers: a line is in the kernel's hands when `tell`
returns, so no SIGKILL takes it back, and lines stand in the order in which they were told, over all processes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `what` happened `at` a moment of the machine's monotonic clock, in seconds.

    Writers tell `committing`, then `committed`, `rolled back` or `in doubt` of each event. Handlers tell `begun`,
    `effect` (not those whose effect is a row of the ledger) and how the run ended: `done`, `failed`, `put off`,
    `aborted`. The bringer of faults tells what it does to whom: see `faults.py`.
    """

    what: str
    at: float
    pid: int
    event: str = ""
    aggregate: str = ""
    version: int = 0
    handler: str = ""
    run: str = ""
    note: str = ""


class Pen:
    """Appends to the history. Any number of processes and threads may hold one."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def tell(self, what: str, *, pid: int = 0, **more: Any) -> None:
        """Append an entry, of this process unless another is named."""
        entry = Entry(what, time.monotonic(), pid or os.getpid(), **more)
        told = {name: value for name, value in asdict(entry).items() if value or name == "at"}
        os.write(self._file, json.dumps(told).encode() + b"\n")


def read(path: Path) -> list[Entry]:
    """Return the whole history."""
    # The kernel shows a line that crosses a page before all of it is written: what has no end yet is left for later.
    whole, _, _ = path.read_text("utf-8").rpartition("\n")
    return [Entry(**json.loads(line)) for line in whole.splitlines()]
