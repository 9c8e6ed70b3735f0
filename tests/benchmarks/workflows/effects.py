"""What every contender's workflow does: three steps that leave a trace. It runs in the peers' Python, too: no packages.

A trace is 24 bytes at the end of a file that all processes share: which execution, which step, when.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TRACE = struct.Struct("<qqd")
STEPS = (1, 2, 3)


def given(number: int) -> dict[str, Any]:
    """Return the input of an execution: about 300 bytes of JSON."""
    return {
        "number": number,
        "orderId": f"order-{number:08d}",
        "customer": {"id": "customer-0042", "email": "ada@example.com", "name": "Ada Lovelace"},
        "lines": [{"sku": f"sku-{line}", "quantity": line, "price": 1990} for line in range(3)],
        "note": "Please ring twice. " * 3,
    }


async def step(number: int, place: int) -> dict[str, Any]:
    """Do a step."""
    return step_in_thread(number, place)


def step_in_thread(number: int, place: int) -> dict[str, Any]:
    """Leave the trace, and return what a small step returns."""
    os.write(_file(), TRACE.pack(number, place, monotonic()))
    return {"step": place, "orderId": f"order-{number:08d}", "status": "accepted", "amount": 1990 * place}


@cache
def _file() -> int:
    # One write at the end of a file is one piece, whoever else writes.
    return os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@dataclass(frozen=True)
class Effects:
    """The traces, as the benchmark reads them."""

    path: Path
    steps: Sequence[int] = STEPS

    def count(self) -> int:
        """Return how many there are."""
        return self.path.stat().st_size // TRACE.size if self.path.exists() else 0

    def first_steps(self) -> dict[int, float]:
        """Return by execution when its first step began."""
        return {number: at for number, place, at in TRACE.iter_unpack(self.path.read_bytes()) if place == self.steps[0]}

    def refuse_all_but(self, numbers: range) -> None:
        """Raise `AssertionError` unless each step of each execution was done, once."""
        done = Counter((number, place) for number, place, _ in TRACE.iter_unpack(self.path.read_bytes()))
        wanted = Counter((number, place) for number in numbers for place in self.steps)
        if done != wanted:
            raise AssertionError(f"{(wanted - done).total()} steps were not done, {(done - wanted).total()} too many")
