"""`notify`: a message to one person, over a channel of the notifications-worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from worker_runtime.notification_jobs import NotificationFields, notification_job
from worker_runtime.outcome import PermanentError
from worker_runtime.redis.connection import RedisUnavailable
from workflow_worker.context import EffectUnavailable
from workflow_worker.steps.step import ExpressionField, StepKind, TextField

if TYPE_CHECKING:
    from worker_runtime.bullmq.producer import NewJob
    from workflow_worker.context import StepCall
    from workflow_worker.steps.step import Occasion

TIMEOUT_SECONDS = 30.0


class Notify(NotificationFields[ExpressionField, TextField], StepKind):
    """One job on the channel's queue, as a routing rule makes it; its id is the step's idempotency key."""

    is_tried: ClassVar[bool] = True

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is `{notificationId}`."""
        return await occasion.effect(lambda call: self._add(occasion, call), occasion.seconds(TIMEOUT_SECONDS))

    async def _add(self, occasion: Occasion, call: StepCall) -> dict[str, str]:
        services = occasion.scene.services
        if remedy := services.off.get(self.channel):
            raise PermanentError("CHANNEL_OFF", f"{self.channel} is switched off: {remedy} change it")
        job = self._job(occasion, call)
        try:
            await services.queue(self.channel).add(job)
        except RedisUnavailable as outage:
            raise EffectUnavailable("Redis did not answer") from outage
        return {"notificationId": call.idempotency_key}

    def _job(self, occasion: Occasion, call: StepCall) -> NewJob:
        metadata = {
            "executionId": str(call.execution_id),
            "rule": occasion.scene.rule,
            "step": call.step,
            "correlationId": occasion.scene.correlation_id,
        }
        recipient, content = self.addressed(occasion), self.content(occasion)
        return notification_job(
            call.organization_id, self.channel, self.priority, call.idempotency_key, recipient, content, metadata
        )
