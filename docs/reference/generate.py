# ruff: noqa: INP001
"""Writes the pages that are made from code: `python docs/reference/generate.py`.

A test compares them with what this would write.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from events_worker.contracts import load_catalogue
from events_worker.contracts.asyncapi import asyncapi_yaml
from events_worker.contracts.reference import reference as events_reference
from events_worker.settings import EventsSettings
from ingestion_worker.settings import IngestionSettings
from jobs_worker.settings import JobsSettings
from notifications_worker.notification import schema as notification_schema
from notifications_worker.settings import NotificationsSettings
from worker_runtime import metric_catalogue, settings
from worker_runtime.settings.variables import variables_of
from workflow_worker.definition import schema as definition_schema
from workflow_worker.settings import WorkflowSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return every page by its path from this folder."""
    workers: dict[str, type[settings.WorkerSettings]] = {
        "events-worker": EventsSettings,
        "ingestion-worker": IngestionSettings,
        "jobs-worker": JobsSettings,
        "notifications-worker": NotificationsSettings,
        "workflow-worker": WorkflowSettings,
    }
    catalogue = load_catalogue()
    return {
        "../events/asyncapi.yaml": asyncapi_yaml(catalogue),
        "events.md": events_reference(catalogue),
        "settings.md": settings.reference(workers, settings.WorkerSettings),
        "metrics.md": metric_catalogue.reference(),
        "notification-job.schema.json": notification_schema(),
        "workflow-definition.schema.json": definition_schema(),
        "../../shared/worker_runtime/settings/elsewhere.txt": beyond_common(workers.values()),
    }


def beyond_common(workers: Iterable[type[settings.WorkerSettings]]) -> str:
    """Return the variables that not every worker has: those which another one knows are no mistakes."""
    common = {variable.name for variable in variables_of(settings.WorkerSettings)}
    own = [variable for worker in workers for variable in variables_of(worker) if variable.name not in common]
    names = {variable.name for variable in own} | {f"{variable.name}_FILE" for variable in own if variable.secret}
    return "\n".join(sorted(names)) + "\n"


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
