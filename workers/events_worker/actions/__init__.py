"""What a rule can do. A new action is a file here and a line in `ACTIONS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.actions.ingest import Ingest
from events_worker.actions.job import Job
from events_worker.actions.notify import Notify
from events_worker.actions.webhook import Webhook
from events_worker.actions.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events_worker.actions.action import Action

__all__ = ["ACTIONS"]

# By the key under which it is written in a rule.
ACTIONS: Mapping[str, type[Action]] = {
    "notify": Notify,
    "ingest": Ingest,
    "webhook": Webhook,
    "workflow": Workflow,
    "job": Job,
}
