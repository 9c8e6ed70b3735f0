"""`job`: a side effect is deferred, for the jobs-worker to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from events_worker.actions.action import Action, ExpressionField
from events_worker.effects import PlannedDeferral
from worker_runtime.notification_jobs import Priority  # noqa: TC001  pydantic reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.actions.action import Occasion

__all__ = ["JOB_QUEUE", "Job"]

# In the place of a queue's key: the whole of the job queue, which is there or not.
JOB_QUEUE = "JOB_QUEUE"
# Those of its engine: more first, without any 0.
PRIORITIES: Mapping[Priority, int] = {"LOW": -10, "NORMAL": 0, "HIGH": 10, "URGENT": 100}
# What an index of the jobs takes.
MOST_LOCK_BYTES = 1_000
LONGEST_DELAY_SECONDS = 365 * 86_400
EngineName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Job(Action):
    """One job for the `task`; its key is of (event, rule), so that it is deferred once.

    Jobs with the same `lock` run one after the other. `delaySeconds` is from the deferral on.
    """

    task: EngineName
    arguments: dict[str, ExpressionField] = Field(default_factory=dict)
    queue: EngineName = "default"
    priority: Priority = "NORMAL"
    lock: ExpressionField | None = None
    delay_seconds: int = Field(0, ge=0, le=LONGEST_DELAY_SECONDS, alias="delaySeconds")

    @classmethod
    def queue_of(cls, _written: Mapping[str, Any], /) -> str:
        """See `Action`."""
        return JOB_QUEUE

    async def effects(self, occasion: Occasion) -> Sequence[PlannedDeferral]:
        """See `Action`."""
        arguments = {key: occasion.value(f"arguments.{key}", source) for key, source in self.arguments.items()}
        return [
            PlannedDeferral(
                id=occasion.id("job"),
                task=self.task,
                arguments=arguments,
                queue=self.queue,
                priority=PRIORITIES[self.priority],
                lock=None if self.lock is None else self._lock(occasion),
                delay_seconds=self.delay_seconds,
                rule=occasion.rule,
            )
        ]

    def _lock(self, occasion: Occasion) -> str:
        assert self.lock is not None  # noqa: S101  asked before
        lock = occasion.identifying("lock", self.lock)
        if len(lock.encode("utf-8", "backslashreplace")) > MOST_LOCK_BYTES:
            raise occasion.failure("lock", f"is longer than {MOST_LOCK_BYTES} bytes")
        return lock
