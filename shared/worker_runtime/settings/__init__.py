"""Configuration: validated once, with warnings, then frozen. Nothing else reads the environment."""

from worker_runtime.settings.groups import DatabaseUrl
from worker_runtime.settings.kinds import (
    Allowed,
    DefaultIs,
    HealthPort,
    Milliseconds,
    Port,
    ShownAs,
)
from worker_runtime.settings.problems import SettingsError
from worker_runtime.settings.reference import reference
from worker_runtime.settings.worker import WorkerSettings, load, misspelt, warnings_about

__all__ = [
    "Allowed",
    "DatabaseUrl",
    "DefaultIs",
    "HealthPort",
    "Milliseconds",
    "Port",
    "SettingsError",
    "ShownAs",
    "WorkerSettings",
    "load",
    "misspelt",
    "reference",
    "warnings_about",
]
