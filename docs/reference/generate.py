# ruff: noqa: INP001
"""Writes the pages that are made from code: `python docs/reference/generate.py`.

A test compares them with what this would write.
"""

from __future__ import annotations

from pathlib import Path

from events_worker.contracts import load_catalogue
from events_worker.contracts.asyncapi import asyncapi_yaml
from events_worker.contracts.reference import reference as events_reference
from events_worker.settings import EventsSettings
from notifications_worker.settings import NotificationsSettings
from worker_runtime import metric_catalogue, settings

FOLDER = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return every page by its path from this folder."""
    workers: dict[str, type[settings.WorkerSettings]] = {
        "events-worker": EventsSettings,
        "notifications-worker": NotificationsSettings,
    }
    catalogue = load_catalogue()
    return {
        "../events/asyncapi.yaml": asyncapi_yaml(catalogue),
        "events.md": events_reference(catalogue),
        "settings.md": settings.reference(workers, settings.WorkerSettings),
        "metrics.md": metric_catalogue.reference(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
