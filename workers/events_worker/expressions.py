"""What the expressions of routing rules speak of: an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_runtime import expressions
from worker_runtime.expressions import ExpressionError

if TYPE_CHECKING:
    from events_worker.event import EventJob

__all__ = ["Expression", "ExpressionError", "Text", "names_of"]

NAMES = ("event", "payload", "metadata")


class Expression(expressions.Expression):
    """An expression over an event."""

    def __init__(self, source: str) -> None:
        super().__init__(source, NAMES)


class Text(expressions.Text):
    """A text with expressions over an event in it."""

    def __init__(self, source: str) -> None:
        super().__init__(source, NAMES)


def names_of(event: EventJob) -> dict[str, Any]:
    """Return what expressions may speak of."""
    envelope = event.model_dump(mode="json", by_alias=True)
    return {"event": envelope, "payload": envelope["payload"], "metadata": envelope["metadata"]}
