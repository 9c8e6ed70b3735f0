"""Endpoints that want one message after another, in the order in which their jobs were claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from worker_runtime.outcome import Defer
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from notifications_worker.channels.webhook_endpoints import Endpoint
    from worker_runtime.bullmq.lines import Lines

__all__ = ["EndpointOrder", "InLines", "NoOrder"]

log = structlog.get_logger()


class EndpointOrder(Protocol):
    """Says whose turn it is at an endpoint."""

    async def put_off(self, endpoint: Endpoint, job_id: str) -> Defer | None:
        """Return for how long a running job has to let others go before it. Raises RedisUnavailable, RedisError."""
        ...

    async def ended(self, endpoint: Endpoint, job_id: str) -> None:
        """Let the next one go: this one was taken, or never will be. Never raises; may be called twice."""
        ...


class NoOrder:
    """For a worker without a database: nobody could have asked for an order."""

    async def put_off(self, endpoint: Endpoint, job_id: str) -> Defer | None:
        """See `EndpointOrder`."""

    async def ended(self, endpoint: Endpoint, job_id: str) -> None:
        """See `EndpointOrder`."""


class InLines:
    """A line for each ordered endpoint, which a retried job keeps its place in and a dead letter leaves."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def put_off(self, endpoint: Endpoint, job_id: str) -> Defer | None:
        """See `EndpointOrder`."""
        if not endpoint.ordered:
            return None
        waiting = await self._lines.may_go(endpoint.name, job_id, _marks(endpoint))
        if waiting is None:
            return None
        reason = "an earlier message to its endpoint, which wants them in order, is unfinished"
        return Defer("EARLIER_DELIVERY_UNFINISHED", reason, waiting.seconds)

    async def ended(self, endpoint: Endpoint, job_id: str) -> None:
        """See `EndpointOrder`."""
        if not endpoint.ordered:
            return
        try:
            await self._lines.ended(job_id)
        except (RedisUnavailable, RedisError) as error:
            # The next one asks again by itself, a little later.
            log.warning("webhook_turn_not_passed_on", endpoint=endpoint.name, error=str(error))


def _marks(endpoint: Endpoint) -> list[dict[str, str]]:
    """How a job's data names the endpoint: by its id or, without one, by its URL."""
    tenant = {"tenantId": endpoint.tenant_id}
    return [tenant | {"recipient.id": endpoint.name}, tenant | {"recipient.webhookUrl": endpoint.url}]
