"""`POST /admin/dlq/retry` and `POST /admin/dlq/drain`: the other door to the dead letters.

Both say what they would do, and do it with `"apply": true`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003  pydantic reads annotations

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from events_worker.dead_letters import RETRIED, Pace, PayloadRefused
from events_worker.drains import Drain
from events_worker.store import Edit, Selection
from events_worker.store.dead_letters import MOST_AT_ONCE
from worker_runtime.admin import Action, Answer, Request
from worker_runtime.bullmq.producer import to_json
from worker_runtime.health_board import timestamp
from worker_runtime.loops import StopSignal
from worker_runtime.payload import explain
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from events_worker.dead_letters import DeadLetters, Plan
    from events_worker.drains import Drains

log = structlog.get_logger()

Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Order(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    event_type: Text | None = None
    code: Text | None = None
    by: Text | None = None
    reason: Annotated[str, Field(max_length=500)] = ""
    apply: bool = False

    def edit(self, remote: str) -> Edit:
        return Edit(self.by or f"http {remote}", self.reason)


class RetryOrder(_Order):
    """Retry the events of these ids, one of them with another payload perhaps; or 1,000 of a type or code."""

    event_ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_AT_ONCE)] | None = None
    payload: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _says_which(self) -> RetryOrder:
        if not (self.event_ids or self.event_type or self.code):
            raise ValueError("name eventIds, eventType or code")
        if self.event_ids and (self.event_type or self.code):
            raise ValueError("eventIds go without eventType and code")
        if self.payload is not None and not self.event_ids:
            raise ValueError("a payload goes with one of eventIds")
        return self

    @property
    def selection(self) -> Selection:
        """Which dead letters."""
        return Selection(event_ids=self.ids or None, event_type=self.event_type, code=self.code)

    @property
    def ids(self) -> list[str]:
        """Those that are named."""
        return [str(event_id) for event_id in self.event_ids or ()]


class DrainOrder(_Order):
    """Retry all dead letters of a type, `rate` events a second, at most `limit`."""

    event_type: Text
    rate: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    limit: Annotated[int, Field(ge=1)] | None = None

    @property
    def selection(self) -> Selection:
        """Which dead letters."""
        return Selection(event_type=self.event_type, code=self.code)


class DeadLetterDoors:
    """The actions, which run on the worker's loop."""

    def __init__(self, dead_letters: DeadLetters, drains: Drains) -> None:
        self._dead_letters = dead_letters
        self._drains = drains

    @property
    def actions(self) -> Mapping[tuple[str, str], Action]:
        """The actions by method and path."""
        return {
            ("POST", "/admin/dlq/retry"): _answered(self._retry),
            ("POST", "/admin/dlq/drain"): _answered(self._drain),
            ("GET", "/admin/dlq/drain"): _answered(self._draining),
        }

    async def _retry(self, request: Request) -> Answer:
        order = RetryOrder.model_validate(request.body)
        edit, plan = order.edit(request.remote), await self._dead_letters.plan(order.selection)
        if not order.apply:
            return Answer(200, {"applied": False, **_shown(plan)})
        result = await (self._retry_named(order, edit) if order.ids else self._retry_some(order, edit))
        _audit(request, edit, order, result["retried"])
        return Answer(200, {"applied": True, **_shown(plan), **result})

    async def _retry_named(self, order: RetryOrder, edit: Edit) -> dict[str, Any]:
        payload = None if order.payload is None else to_json(order.payload)
        outcomes = await self._dead_letters.retry(order.ids, edit, payload)
        return {"retried": list(outcomes.values()).count(RETRIED), "outcomes": outcomes}

    async def _retry_some(self, order: RetryOrder, edit: Edit) -> dict[str, Any]:
        chunks = self._dead_letters.retry_all(order.selection, edit, pace=Pace(), stop=StopSignal(), most=MOST_AT_ONCE)
        return {"retried": sum([retried async for retried in chunks])}

    async def _drain(self, request: Request) -> Answer:
        order = DrainOrder.model_validate(request.body)
        edit, plan = order.edit(request.remote), await self._dead_letters.plan(order.selection)
        if not order.apply:
            return Answer(200, {"applied": False, **_shown(plan)})
        if self._drains.busy and self._drains.newest is not None:
            return Answer(409, {"error": "a drain is at work", "drain": self._drains.newest.as_json()})
        drain = Drain(order.selection, edit, order.rate, order.limit, plan.count, timestamp())
        self._drains.begin(drain)
        _audit(request, edit, order, 0)
        return Answer(202, {"applied": True, **_shown(plan), "drain": drain.as_json()})

    async def _draining(self, _: Request) -> Answer:
        newest = self._drains.newest
        return Answer(200, {"drain": newest.as_json() if newest else None})


def _answered(action: Callable[[Request], Awaitable[Answer]]) -> Action:
    """Make an answer of what can go wrong."""

    async def answer(request: Request) -> Answer:
        try:
            return await action(request)
        except ValidationError as error:
            return Answer(400, {"error": explain(error)})
        except PayloadRefused as refusal:
            return Answer(422, {"error": str(refusal)})
        except DatabaseUnavailable:
            return Answer(503, {"error": "PostgreSQL did not answer"})

    return answer


def _shown(plan: Plan) -> dict[str, Any]:
    groups = [
        {"code": group.code, "eventType": group.event_type, "count": group.count, "example": group.example}
        for group in plan.groups
    ]
    return {"matched": plan.count, "groups": groups}


def _audit(request: Request, edit: Edit, order: _Order, changed: int) -> None:
    asked = order.model_dump(mode="json", by_alias=True, exclude={"payload", "event_ids", "by", "reason", "apply"})
    named = len(getattr(order, "ids", ()))
    log.info(
        "admin_request",
        action=type(order).__name__,
        remote=request.remote,
        by=edit.by,
        reason=edit.reason,
        asked=asked,
        named=named,
        changed=changed,
    )
