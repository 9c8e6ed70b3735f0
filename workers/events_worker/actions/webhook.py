"""`webhook`: the event itself, to every endpoint the tenant has registered for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from events_worker.actions.action import Action, Name
from events_worker.actions.notify import notification
from events_worker.cloudevents import cloud_event
from worker_runtime.notification_jobs import Priority  # noqa: TC001  pydantic reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.actions.action import Occasion, PlannedJob
    from events_worker.endpoints import Endpoint

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class Webhook(Action):
    """One job on `notifications:webhook` for each endpoint; its id is that of (event, rule, endpoint).

    The body is the event as CloudEvents 1.0 JSON; `source` is its attribute of that name.
    """

    source: Name = "/intelliflow"
    priority: Priority = "NORMAL"

    @classmethod
    def queue_of(cls, _written: Mapping[str, Any], /) -> str:
        """See `Action`."""
        return "WEBHOOK"

    async def jobs(self, occasion: Occasion) -> Sequence[PlannedJob]:
        """See `Action`."""
        endpoints = await occasion.endpoints.registered(occasion.event.tenant_id, occasion.event.event_type)
        # One text for all of them: what is signed for one endpoint is what another receives.
        body = self._body(occasion) if endpoints else ""
        return [self._job(occasion, endpoint, body) for endpoint in endpoints]

    def _job(self, occasion: Occasion, endpoint: Endpoint, body: str) -> PlannedJob:
        return notification(
            occasion,
            "WEBHOOK",
            self.priority,
            occasion.id("webhook", endpoint.id),
            {"id": endpoint.id, "webhookUrl": endpoint.url},
            {"body": body},
            contentType=CONTENT_TYPE,
        )

    def _body(self, occasion: Occasion) -> str:
        try:
            return json.dumps(cloud_event(occasion.event, self.source), separators=(",", ":"), allow_nan=False)
        except ValueError as error:
            raise occasion.failure("webhook", "the event holds a number that JSON cannot write") from error
