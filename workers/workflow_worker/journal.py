"""What an execution has behind it: completed steps are not run again, and waiting ones know since when they wait."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workflow_worker.execution import StepRecord

__all__ = ["Journal"]

RECORD_CHARACTERS = 200


class Journal:
    """The records of one round, by step. A workflow that runs asks for its steps again, in any order."""

    def __init__(self, records: Sequence[StepRecord]) -> None:
        self._ends = {record.step: record for record in records if is_end(record)}
        self._waiting = {record.step: record for record in records if record.status == "waiting"}
        self._failures = Counter(record.step for record in records if record.status == "failed")
        self._asked: Counter[str] = Counter()
        # As it is written down; what it was made of is not kept.
        self.characters = sum(map(characters_of, records))

    def place_of(self, name: str) -> str:
        """Return the step that this call of `name` is: the name itself, then `name#2`, `name#3`."""
        self._asked[name] += 1
        return name if self._asked[name] == 1 else f"{name}#{self._asked[name]}"

    def end_of(self, step: str) -> StepRecord | None:
        """Return how the step ended: completed, or failed for good."""
        return self._ends.get(step)

    def waiting(self, step: str) -> StepRecord | None:
        """Return since when the step waits, and for what."""
        return self._waiting.get(step)

    def failures(self, step: str) -> int:
        """Return how often the step has failed."""
        return self._failures[step]

    def note(self, record: StepRecord) -> None:
        """Add a record of now."""
        self.characters += characters_of(record)
        if is_end(record):
            self._ends[record.step] = record
        elif record.status == "waiting":
            self._waiting[record.step] = record
        if record.status == "failed":
            self._failures[record.step] += 1

    def unasked(self) -> list[str]:
        """List ended steps that the workflow did not ask for: it is not the one that made this journal."""
        names = {step.partition("#")[0] for step in self._ends}
        return sorted(names - set(self._asked))


def characters_of(record: StepRecord) -> int:
    """Tell about how long a record is."""
    return RECORD_CHARACTERS + (0 if record.output is None else len(json.dumps(record.output)))


def is_end(record: StepRecord) -> bool:
    """Tell a record after which the step is not run again."""
    return record.status == "completed" or (record.status == "failed" and record.output == {"final": True})
