"""The lifecycle and everything a worker stands on. These names are the public ones."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker_runtime.breaker import CircuitOpen
    from worker_runtime.job import Job
    from worker_runtime.loops import Heartbeat, Loop, StopSignal
    from worker_runtime.outcome import DeadLetter, Defer, Done, Hold, Outcome, PermanentError, Retry
    from worker_runtime.runtime import Runtime
    from worker_runtime.settings import WorkerSettings
    from worker_runtime.worker import Worker

__all__ = [
    "CircuitOpen",
    "DeadLetter",
    "Defer",
    "Done",
    "Heartbeat",
    "Hold",
    "Job",
    "Loop",
    "Outcome",
    "PermanentError",
    "Retry",
    "Runtime",
    "StopSignal",
    "Worker",
    "WorkerSettings",
]

_HOME = {
    "breaker": ("CircuitOpen",),
    "job": ("Job",),
    "loops": ("Heartbeat", "Loop", "StopSignal"),
    "outcome": ("DeadLetter", "Defer", "Done", "Hold", "Outcome", "PermanentError", "Retry"),
    "runtime": ("Runtime",),
    "settings": ("WorkerSettings",),
    "worker": ("Worker",),
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: the command line uses two small modules and need not pay for an HTTP server's.
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"worker_runtime.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
