"""Actions whose workers come with later versions: what is written under their keys is checked already.

The version that brings such a worker replaces the entry here by a file of its own and its line in `ACTIONS`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from events_worker.actions.action import ExpressionField, Name, Unavailable


class SideEffect(Unavailable):
    """Defers a side-effect job by the name of its task."""

    needs: ClassVar[str] = "jobs-worker"

    task: Name
    arguments: dict[str, ExpressionField] = Field(default_factory=dict)
