"""What a worker, its fork server and the children say to each other.

Worker and fork server exchange JSON messages over a socket that keeps them apart. A child writes frames to its pipe:
four bytes of length, then JSON: `{"progress": [done, total]}` any number of times, then `{"done": result}` or
`{"failed": [problem, sentence]}`. What comes from a child may be under somebody else's control.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, dataclass
from typing import Any

from ingestion_worker.isolation.task import Limits

__all__ = ["MOST_FRAME_BYTES", "MOST_MESSAGE_BYTES", "Ended", "ForkOrder", "FrameReader", "Garbled", "framed", "write"]

MOST_FRAME_BYTES = 65_536
MOST_MESSAGE_BYTES = 131_072
LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class ForkOrder:
    """To the fork server, with the pipe's writing end: run `program` (`module:function`) in a new child."""

    number: int
    program: str
    folder: str
    order: dict[str, Any]
    limits: Limits

    def message(self) -> bytes:
        """Write it down; raises `ValueError` when it is too long or no JSON."""
        message = json.dumps({"fork": asdict(self)}, separators=(",", ":")).encode()
        if len(message) > MOST_MESSAGE_BYTES:
            raise ValueError(f"an order of {len(message)} bytes: what is longer than a few KB belongs into a file")
        return message

    @classmethod
    def read(cls, fields: dict[str, Any]) -> ForkOrder:
        """Read what `message` wrote."""
        return cls(**{**fields, "limits": Limits(**fields["limits"])})


@dataclass(frozen=True, slots=True)
class Ended:
    """From the fork server: a child and all that it started are gone.

    `status` is the exit code, or the negative number of the signal that ended it; `None`: it could not be forked, or
    the fork server itself is gone. `peak_bytes` is the most memory it had beyond what it was born with.
    """

    number: int
    status: int | None
    peak_bytes: int = 0
    cpu_seconds: float = 0.0


class Garbled(Exception):
    """A child wrote something that is no frame."""


class FrameReader:
    """Puts frames together from what comes through a pipe, and holds no more than one of them."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the frames that are complete now. Raises `Garbled`."""
        self._rest += data
        frames = []
        while len(self._rest) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._rest)
            if length > MOST_FRAME_BYTES:
                raise Garbled
            end = LENGTH.size + length
            if len(self._rest) < end:
                break
            frames.append(_frame(bytes(self._rest[LENGTH.size : end])))
            del self._rest[:end]
        return frames


def framed(frame: dict[str, Any]) -> bytes:
    """Return a frame as it goes through a pipe. Raises `ValueError` or `TypeError` when it is too large or no JSON."""
    data = json.dumps(frame, separators=(",", ":")).encode()
    if len(data) > MOST_FRAME_BYTES:
        raise ValueError(f"a frame of {len(data)} bytes")
    return LENGTH.pack(len(data)) + data


def write(pipe: int, data: bytes) -> None:
    """Write all of it, however long the reader takes."""
    left = memoryview(data)
    while left:
        left = left[os.write(pipe, left) :]


def _frame(data: bytes) -> dict[str, Any]:
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError):
        raise Garbled from None
    if not isinstance(frame, dict):
        raise Garbled
    return frame
