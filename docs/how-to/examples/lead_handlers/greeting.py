from events_worker.handlers import EventJob, HandlerContext, NewJob, on
from worker_runtime import PermanentError


@on("lead.converted", name="greet-customer", timeout_seconds=10)
async def greet(event: EventJob, context: HandlerContext) -> None:
    """Send the new customer's owner a mail: the notification's id is the same however often this runs."""
    owner = event.payload.get("ownerEmail")
    if not owner:
        raise PermanentError("NO_OWNER", "payload.ownerEmail is missing, and somebody must say hello")
    notification = {
        "notificationId": context.idempotency_key,
        "tenantId": event.tenant_id,
        "channel": "EMAIL",
        "recipient": {"email": owner},
        "content": {"subject": "A new customer", "body": f"{event.payload.get('leadName') or 'Somebody'} has signed."},
    }
    await context.enqueue("EMAIL", NewJob("new-customer", notification, job_id=context.idempotency_key))
