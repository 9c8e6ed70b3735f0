"""`email.send`: one e-mail, handed to the notifications-worker."""

from __future__ import annotations

from typing import Annotated, Any, Self

from procrastinate import JobContext  # noqa: TC002  a task's annotations are read by whoever inspects it
from pydantic import Field, StringConstraints, model_validator

from jobs_worker.app import job_queue
from jobs_worker.arguments import Arguments, read_arguments
from jobs_worker.backoff import Backoff
from jobs_worker.deadline import deadline
from jobs_worker.ending import Later
from jobs_worker.identity import idempotency_key
from jobs_worker.services import services_of
from worker_runtime.notification_jobs import Priority, notification_job
from worker_runtime.redis.connection import RedisUnavailable

__all__ = ["Mail", "send"]

OUTAGE_SECONDS = 5.0
Given = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Mail(Arguments):
    """One message to one person: a `template` of the notifications-worker with its `data`, or a `body`."""

    tenant_id: Given
    to: Given
    recipient_id: Given | None = None
    priority: Priority = "NORMAL"
    subject: Given | None = None
    body: Given | None = None
    html_body: Given | None = None
    template: Given | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.template is None) == (self.body is None):
            raise ValueError("needs either template (with data) or body (with subject)")
        if self.body is not None and self.data:
            raise ValueError("data is for a template; a body has its values in the text")
        return self

    def recipient(self) -> dict[str, str]:
        """Return whom it is for."""
        return {"email": self.to} | ({"id": self.recipient_id} if self.recipient_id else {})

    def content(self) -> dict[str, Any]:
        """Return what it says."""
        texts = {"subject": self.subject, "body": self.body, "htmlBody": self.html_body, "templateId": self.template}
        content: dict[str, Any] = {key: text for key, text in texts.items() if text is not None}
        return content | ({"templateData": self.data} if self.template else {})


@job_queue.task(name="email.send", queue="email", pass_context=True, retry=Backoff())
@deadline(30)
async def send(context: JobContext, /, **arguments: Any) -> None:
    """Add a notification to the product's queue, under an id of the job's own: once, however often it is tried.

    The arguments are those of `Mail`. Redis being away costs no attempt.
    """
    mail, queue = read_arguments(Mail, arguments), services_of(context).runtime.queue("EMAIL")
    origin = mail.metadata | {"jobId": str(context.job.id), "task": context.job.task_name}
    identity, recipient, content = idempotency_key(context), mail.recipient(), mail.content()
    job = notification_job(mail.tenant_id, "EMAIL", mail.priority, identity, recipient, content, origin)
    try:
        await queue.add(job)
    except RedisUnavailable as outage:
        raise Later(f"REDIS_UNAVAILABLE: {outage}", OUTAGE_SECONDS) from outage
