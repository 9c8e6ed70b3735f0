"""Webhooks as Standard Webhooks 1.0.0 has them: a signed POST to an endpoint of the tenant's.

The body is `content.body`, byte for byte. `webhook-id` is the same at every attempt, `webhook-timestamp` is the
attempt's own, and the signature covers both and the body. Only 2xx says that the message was taken.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import structlog

from notifications_worker.channel import Accepted, ChannelKind, Circuit, NotAccepted, Reply, Route, Verdict
from notifications_worker.channels.webhook_endpoints import RegisteredEndpoints, UrlsOnly
from notifications_worker.channels.webhook_order import InLines, NoOrder
from notifications_worker.channels.webhook_replies import (
    GONE,
    accepted,
    excerpt,
    verdict_on_answer,
    verdict_on_failure,
)
from notifications_worker.channels.webhook_settings import WebhookSettings
from notifications_worker.channels.webhook_signature import message_id, signed_headers
from notifications_worker.store import EndpointStore
from worker_runtime.bullmq.lines import Lines
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached, egress
from worker_runtime.outcome import DeadLetter, Defer, PermanentError
from worker_runtime.postgres import BY_INDEX, Database, DatabaseUnavailable
from worker_runtime.redis.cluster import redis_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from notifications_worker.channels.webhook_endpoints import Endpoint, EndpointBook
    from notifications_worker.channels.webhook_order import EndpointOrder
    from notifications_worker.notification import Notification
    from worker_runtime.egress import EgressClient, EgressReply
    from worker_runtime.job import Job
    from worker_runtime.redis.connection import RedisConnection

__all__ = ["WebhookChannel", "WebhookMessage", "webhook_channel"]

log = structlog.get_logger()

PROVIDER = "webhook"
USER_AGENT = "IntelliFlow-Webhooks/1"
CONTENT_TYPE = "application/json"
DATABASE_PAUSE_SECONDS = 1.0
LOGGED_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """What every attempt sends. The headers do not hold those that an attempt signs."""

    endpoint: Endpoint
    job_id: str
    id: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)


class WebhookChannel:
    """See `Channel`. `now` is the clock that signatures are dated by, in seconds since the epoch."""

    name: ClassVar[str] = "WEBHOOK"
    keeps_payload: ClassVar[bool] = True
    providers: tuple[str, ...] = (PROVIDER,)
    circuits: tuple[str, ...] = ()

    def __init__(
        self,
        book: EndpointBook,
        order: EndpointOrder,
        client: EgressClient,
        timeout_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._order = order
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._now = now

    def recipient(self, notification: Notification) -> str:
        """See `Channel`."""
        recipient = notification.recipient
        if address := recipient.webhook_url or recipient.id:
            return address
        raise PermanentError("INVALID_PAYLOAD", "recipient.webhookUrl is missing, and so is recipient.id")

    def shown(self, recipient: str) -> str:
        """See `Channel`."""
        scheme, separator, rest = recipient.partition("://")
        host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
        return f"{scheme}://{host}" if separator else recipient

    async def compose(self, job: Job[Notification]) -> WebhookMessage:
        """See `Channel`."""
        notification = job.payload
        self.recipient(notification)
        body = _body(notification)
        endpoint = await self._endpoint(notification)
        if wait := await self._order.put_off(endpoint, job.id):
            raise NotAccepted(Verdict(wait, Circuit.UNTOLD))
        own = {"Content-Type": _content_type(notification), "User-Agent": USER_AGENT}
        webhook_id = message_id(notification.notification_id)
        return WebhookMessage(endpoint, job.id, webhook_id, body, {**endpoint.headers, **own})

    async def _endpoint(self, notification: Notification) -> Endpoint:
        try:
            endpoint = await self._book.find(notification.tenant_id, notification.recipient)
        except DatabaseUnavailable as error:
            pause = Defer("STATE_UNAVAILABLE", "PostgreSQL could not say where this goes", DATABASE_PAUSE_SECONDS)
            raise NotAccepted(Verdict(pause, Circuit.UNTOLD)) from error
        if endpoint is None:
            raise PermanentError("ENDPOINT_UNKNOWN", "the tenant has no endpoint with the id in recipient.id")
        if endpoint.disabled_because:
            remedy = f"`intelliflow endpoints enable {endpoint.id}`, then retry the job"
            raise PermanentError(
                "ENDPOINT_DISABLED", f"the endpoint is disabled ({endpoint.disabled_because}): {remedy}"
            )
        return endpoint

    def routes(self, message: WebhookMessage) -> Sequence[Route[WebhookMessage]]:
        """See `Channel`."""
        endpoint = message.endpoint
        circuit = f"{PROVIDER}:{endpoint.name}"
        rate = endpoint.rate_per_second
        return (Route(PROVIDER, circuit, self.send, shared=False, per_second=rate, repeatable=True),)

    async def send(self, message: WebhookMessage) -> Accepted:
        """Send it once. Raises NotAccepted; what the endpoint did is noted in the book either way."""
        try:
            taken = await self._attempt(message)
        except NotAccepted as refused:
            if isinstance(refused.verdict.outcome, DeadLetter):
                await self._order.ended(message.endpoint, message.job_id)
            raise
        await self._order.ended(message.endpoint, message.job_id)
        return taken

    async def _attempt(self, message: WebhookMessage) -> Accepted:
        try:
            reply = await self._post(message)
        except (EgressRefused, NotReached, NoAnswer) as failure:
            await self._note_failure(message.endpoint, gone=False)
            raise NotAccepted(verdict_on_failure(failure), str(failure), _reply(message)) from failure
        if accepted(reply.status):
            await self._note_success(message.endpoint)
            return Accepted(message.id, _reply(message, reply))
        await self._note_failure(message.endpoint, gone=reply.status == GONE)
        kept = _reply(message, reply)
        raise NotAccepted(self._verdict(message.endpoint, reply), kept.text[:LOGGED_CHARACTERS], kept)

    async def _post(self, message: WebhookMessage) -> EgressReply:
        signed = signed_headers(message.endpoint.keys, message.id, int(self._now()), message.body)
        return await self._client.post(
            message.endpoint.url, message.body, message.headers | signed, self._timeout_seconds
        )

    def _verdict(self, endpoint: Endpoint, reply: EgressReply) -> Verdict:
        verdict = verdict_on_answer(reply.status, reply.headers, self._now(), endpoint.permanent_statuses)
        # Of a bare URL there is no row that could be disabled.
        return replace(verdict, suppress="ENDPOINT_GONE") if reply.status == GONE and not endpoint.id else verdict

    async def _note_success(self, endpoint: Endpoint) -> None:
        try:
            await self._book.succeeded(endpoint)
        except DatabaseUnavailable as error:
            log.warning("webhook_success_not_noted", endpoint=endpoint.name, error=str(error))

    async def _note_failure(self, endpoint: Endpoint, *, gone: bool) -> None:
        """Note it where it counts; without a database the next failure is counted as well as this one."""
        try:
            disabled = await self._book.failed(endpoint, gone=gone)
        except DatabaseUnavailable as error:
            log.warning("webhook_failure_not_noted", endpoint=endpoint.name, error=str(error))
            return
        if disabled:
            log.warning("webhook_endpoint_disabled", endpoint=endpoint.name, gone=gone)


def _body(notification: Notification) -> bytes:
    body = notification.content.body
    if body is None:
        raise PermanentError("INVALID_PAYLOAD", "content.body is missing")
    try:
        return body.encode()
    except UnicodeEncodeError as error:
        raise PermanentError("INVALID_PAYLOAD", "content.body holds half of a surrogate pair") from error


def _content_type(notification: Notification) -> str:
    given = (notification.metadata or {}).get("contentType", CONTENT_TYPE)
    if isinstance(given, str) and given.isascii() and given.isprintable() and given:
        return given
    raise PermanentError("INVALID_PAYLOAD", "metadata.contentType is not one line of ASCII")


def _reply(message: WebhookMessage, reply: EgressReply | None = None) -> Reply:
    signed_by = tuple(key.id for key in message.endpoint.keys)
    if reply is None:
        return Reply(signed_by=signed_by)
    text = excerpt(reply.body, reply.headers.get("Content-Encoding", ""))
    return Reply(reply.status, text=text, remote=reply.remote, signed_by=signed_by)


@asynccontextmanager
async def webhook_channel(settings: WebhookSettings) -> AsyncIterator[WebhookChannel]:
    """Open the channel; connections are made when the first message needs one and closed on leaving."""
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(egress(settings))
        seconds, keys = settings.webhook_timeout_ms / 1000, settings.webhook_keys()
        if settings.database_url is None:
            yield WebhookChannel(UrlsOnly(keys), NoOrder(), client, seconds)
            return
        database = await opened.enter_async_context(_database(settings.database_url.get_secret_value()))
        book = RegisteredEndpoints(EndpointStore(database), keys, settings.webhook_disable_after_ms / 1000)
        redis = await opened.enter_async_context(_redis(settings))
        yield WebhookChannel(book, InLines(Lines(redis, settings.queue_name("WEBHOOK"))), client, seconds)


def _database(url: str) -> Database:
    return Database(url, application="notifications-worker endpoints", settings=BY_INDEX)


@asynccontextmanager
async def _redis(settings: WebhookSettings) -> AsyncIterator[RedisConnection]:
    redis = redis_connection(settings.redis_address(), client_name="notifications-worker order")
    await redis.open()
    try:
        yield redis
    finally:
        await redis.close()


KIND = ChannelKind(WebhookSettings, webhook_channel)
