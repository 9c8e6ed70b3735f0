"""What tasks may use of the worker that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate import JobContext

    from jobs_worker.store import JobStore
    from worker_runtime.egress import EgressClient
    from worker_runtime.runtime import Runtime

__all__ = ["Services", "services_of"]


@dataclass(frozen=True, slots=True)
class Services:
    """Queues of the product, HTTP through the guard, and the store of the jobs themselves."""

    runtime: Runtime[Any]
    http: EgressClient
    store: JobStore


def services_of(context: JobContext) -> Services:
    """Return them, for a task that takes its context."""
    found: Services = context.additional_context["services"]
    return found
