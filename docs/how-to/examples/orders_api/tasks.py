import json
import os

import structlog
from procrastinate import JobContext

from jobs_worker.app import job_queue
from jobs_worker.backoff import Backoff
from jobs_worker.deadline import deadline
from jobs_worker.identity import idempotency_key
from jobs_worker.services import services_of
from worker_runtime import PermanentError
from worker_runtime.egress.calls import Call, answered

log = structlog.get_logger()


@job_queue.task(name="orders.pack", queue="orders", retry=Backoff(attempts=8), pass_context=True)
@deadline(30)
async def pack(context: JobContext, /, order_id: str) -> None:
    """Have a parcel packed. The warehouse knows a repetition by its key, and answers 409."""
    if not order_id.isalnum():
        raise PermanentError("NO_ORDER_ID", "order_id is letters and digits")
    body = json.dumps({"order": order_id}).encode()
    url = f"{os.environ['WAREHOUSE_URL']}/parcels"
    call = Call("POST", url, idempotency_key(context), body, {"Content-Type": "application/json"})
    await answered(services_of(context).http, call, 20, expect=[201, 409])


@job_queue.periodic(cron="0 6 * * *")
@job_queue.task(name="orders.count", queue="orders", queueing_lock="orders.count", retry=Backoff())
def count(timestamp: int) -> None:
    """Run at six in the morning, UTC, in a thread: plain functions may block."""
    log.info("orders_counted", due=timestamp)
