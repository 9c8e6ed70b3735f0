"""How a queue is called by people and where its keys are.

BullMQ's keys are `<prefix>:<name>:<part>`. Node refuses a colon in the name and allows it in the prefix, so
`intelliflow:notifications:email` is the queue `email` under the prefix `intelliflow:notifications`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

# What a queue's own keys are called; a job's hash lies beside them under its id.
WORDS = (
    "active completed de delayed events failed id limiter marker meta paused pc prioritized repeat stalled"
    " stalled-check stalled-check-py wait waiting-children"
)
PARTS = frozenset(WORDS.split())


@dataclass(frozen=True, slots=True)
class QueueName:
    """A queue's BullMQ prefix and name; `label` is what runbooks, metrics, logs and the command line write."""

    prefix: str
    name: str

    def __post_init__(self) -> None:
        if not self.name or ":" in self.name:
            raise ValueError(f"queue name {self.name!r}: must not be empty or hold a colon (put it in the prefix)")

    @property
    def label(self) -> str:
        """Like `intelliflow:notifications:email`."""
        return f"{self.prefix}:{self.name}"

    def key(self, part: str) -> str:
        """Return the Redis key of a part (`wait`, `meta`, ...) or of the job with that id."""
        return f"{self.prefix}:{self.name}:{part}"

    def client_name(self, worker: str) -> str:
        """Return the connection name by which Node's `getWorkers` and bull-board count workers."""
        encoded = base64.b64encode(self.name.encode()).decode()
        return f"{self.prefix}:{encoded}:w:{worker}"


def refuse_job_id(job_id: str) -> str | None:
    """Say why Node's rule forbids a custom job id, or return `None`.

    Source: `validateOptions` of Node's Job. An integer could collide with the queue's own counter. Node lets an id pass
    that is the name of one of the queue's own keys, and the queue is broken.
    """
    if not job_id:
        return "a custom job id must not be empty"
    if job_id.removeprefix("-").isdecimal() and job_id.isascii() and str(int(job_id)) == job_id:
        return f"custom job id {job_id!r}: must not be an integer, those are BullMQ's own"
    if job_id in PARTS:
        return f"custom job id {job_id!r}: must not be the name of one of the queue's own keys"
    if ":" in job_id and not (job_id.startswith("repeat:") and job_id.count(":") == 2):  # noqa: PLR2004
        return f"custom job id {job_id!r}: must not hold a colon"
    return None
