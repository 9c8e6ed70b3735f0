"""A webhook channel between a scripted receiver and a real PostgreSQL."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from notifications_worker.channel import Accepted, NotAccepted
from notifications_worker.channels.webhook import WebhookChannel
from notifications_worker.channels.webhook_endpoints import RegisteredEndpoints
from notifications_worker.channels.webhook_order import NoOrder
from notifications_worker.channels.webhook_signature import read_key
from notifications_worker.notification import Notification
from notifications_worker.store import EndpointStore
from scripted_http import ScriptedHttp
from worker_runtime.egress import egress
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notifications_worker.channels.webhook_order import EndpointOrder
    from worker_runtime.job import Job

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FALLBACK = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
QUEUE = "intelliflow:notifications:webhook"
DISABLE_AFTER_SECONDS = 120 * 3600.0
PATIENT_SECONDS = 20.0
TENANT = "t-1"


@dataclass(frozen=True)
class Loopback:
    egress_allowed_cidrs: tuple[str, ...] = ("127.0.0.0/8",)


def job(*, job_id: str | None = None, **changes: Any) -> Job[Notification]:
    notification_id = str(uuid4())
    payload: dict[str, Any] = {
        "notificationId": notification_id,
        "tenantId": TENANT,
        "channel": "WEBHOOK",
        "recipient": {},
        "content": {"body": '{"b":1,  "a":"é"}'},
    }
    notification = Notification.model_validate(payload | changes)
    return job_for(notification, job_id=job_id or notification_id, name="send", queue=QUEUE)


@dataclass
class WebhookDesk:
    """What a test of the channel has at hand."""

    server: ScriptedHttp
    channel: WebhookChannel
    database_url: str

    async def endpoint(self, **columns: Any) -> str:
        """Register an endpoint and return its id."""
        columns = {"tenant_id": TENANT, "url": self.server.url, "secret": SECRET} | columns
        names, values = ", ".join(columns), ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        async with self.connected() as connection:
            row = f"INSERT INTO tenant_webhook_endpoint ({names}) VALUES ({values}) RETURNING id::text"
            return str(await connection.fetchval(row, *columns.values()))

    async def row(self, endpoint: str) -> Any:
        async with self.connected() as connection:
            return await connection.fetchrow("SELECT * FROM tenant_webhook_endpoint WHERE id = $1", UUID(endpoint))

    async def change(self, endpoint: str, what: str) -> None:
        async with self.connected() as connection:
            await connection.execute(f"UPDATE tenant_webhook_endpoint SET {what} WHERE id = $1", UUID(endpoint))

    async def events(self) -> list[dict[str, Any]]:
        """Return the events that are committed, payloads read."""
        async with self.connected() as connection:
            rows = await connection.fetch("SELECT * FROM domain_event_outbox ORDER BY position")
        return [{**row, "payload": json.loads(row["payload"])} for row in rows]

    async def send(self, **changes: Any) -> Accepted:
        return await self.send_job(job(**changes))

    async def send_job(self, one: Job[Notification]) -> Accepted:
        message = await self.channel.compose(one)
        [route] = self.channel.routes(message)
        return await route.send(message)

    async def refused(self, **changes: Any) -> NotAccepted:
        try:
            accepted = await self.send(**changes)
        except NotAccepted as refused:
            return refused
        raise AssertionError(f"it was accepted: {accepted}")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def webhook_desk(
    database_url: str,
    *,
    seconds: float = PATIENT_SECONDS,
    order: EndpointOrder | None = None,
    remembered: float = 0.0,
) -> AsyncIterator[WebhookDesk]:
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(ScriptedHttp())
        client = await opened.enter_async_context(egress(Loopback()))
        database = await opened.enter_async_context(Database(database_url, settings=BY_INDEX))
        book = RegisteredEndpoints(
            EndpointStore(database), (read_key(FALLBACK),), DISABLE_AFTER_SECONDS, remembered_seconds=remembered
        )
        yield WebhookDesk(server, WebhookChannel(book, order or NoOrder(), client, seconds), database_url)
