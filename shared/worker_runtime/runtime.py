"""What a worker's `on_start` is handed: everything built from the settings, ready to make loops of."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from random import Random
from typing import TYPE_CHECKING, Any, Generic

import structlog
from pydantic import BaseModel
from typing_extensions import TypeVar

from worker_runtime.admin import AdminDoors
from worker_runtime.breaker import Breaker, Breakers
from worker_runtime.bullmq.engine_options import EngineOptions
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.bullmq.scripts import Limit
from worker_runtime.clock import Clock, SystemClock
from worker_runtime.consumer import Consumer, ConsumerOptions
from worker_runtime.dependencies import Dependencies, Dependency
from worker_runtime.ending import FAILED, Ending
from worker_runtime.health import HealthServer
from worker_runtime.health_board import HealthBoard, Identity
from worker_runtime.loop_guard import LoopGuard
from worker_runtime.metrics import Metrics
from worker_runtime.redis.cluster import redis_connection
from worker_runtime.redis.connection import RedisUnavailable
from worker_runtime.settings import WorkerSettings
from worker_runtime.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from worker_runtime.bullmq.engine import Gate
    from worker_runtime.consumer import Handler, OnDead
    from worker_runtime.ending import StopOrders
    from worker_runtime.redis.connection import RedisConnection

S = TypeVar("S", bound=WorkerSettings, default=WorkerSettings)
M = TypeVar("M", bound=BaseModel)
RENEWALS_PER_LOCK = 5
# A blocking read may rest for this long; the connection's own patience must outlast it.
BLOCKING_TIMEOUT_SECONDS = 15.0
CLOSE_SECONDS = 0.5


class Runtime(Generic[S]):
    """The pieces of one worker process. Made and used on its event loop; `settings` are the worker's own."""

    def __init__(self, worker: str, settings: S, queue_keys: Iterable[str] = (), *, needs_redis: bool = True) -> None:
        release = installed_version()
        self.worker = worker
        self.settings = settings
        self.random = Random()  # noqa: S311  spreads retries, protects nothing
        self.clock: Clock = SystemClock()
        self.log = structlog.get_logger()
        self.metrics = Metrics(worker, release)
        self.token = uuid.uuid4().hex
        self.redis = self._connection(worker, timeout_seconds=5.0)
        self.breakers = Breakers(
            self.redis,
            settings.queue_prefix,
            self.metrics.dependencies,
            threshold=settings.circuit_breaker_failure_threshold,
            reset_ms=settings.circuit_breaker_reset_timeout_ms,
        )
        self.dependencies = Dependencies(self.metrics, self.breakers)
        self._consumers: list[Consumer[Any]] = []
        self._other_work: list[Callable[[], list[dict[str, Any]]]] = []
        self.health = HealthBoard(
            Identity(worker, release),
            stall_limit_ms=settings.loop_stall_limit_ms,
            config=settings.public(),
            job_metrics=self._job_metrics,
            jobs_in_flight=self._jobs_in_flight,
        )
        self.doors = AdminDoors(settings.ops_token)
        self.watch = Watch(self.health, self.dependencies, self.metrics)
        self._queues: dict[str | QueueName, JobQueue] = {}
        for key in queue_keys:
            self._announce(key)
        if needs_redis:
            self.require("redis", self._ping_redis, where=str(settings.redis_address()))

    def queue(self, key: str | QueueName) -> JobQueue:
        """Return the queue with that key (`EVENTS`, `EMAIL`...) or of that name, to add jobs to or to ask.

        Raises `KeyError` for a key that is none.
        """
        if key not in self._queues:
            name = key if isinstance(key, QueueName) else self.settings.queue_name(key)
            self._queues[key] = JobQueue(self.redis, name)
        return self._queues[key]

    def consumer(
        self,
        queue: str,
        payload: type[M],
        handle: Handler[M],
        gate: Gate | None = None,
        time_limit_seconds: float = 60.0,
        on_dead: OnDead | None = None,
        reserve: int = 0,
    ) -> Consumer[M]:
        """Return the loop that works a queue. `gate` says for how many seconds nothing should be fetched (0: go).

        `reserve`: see `EngineOptions`.
        """
        settings, name = self.settings, self.settings.queue_name(queue)
        options = ConsumerOptions(
            settings.retry_policy(queue),
            replace(self._engine_options(queue), reserve=reserve),
            time_limit_seconds,
            settings.queue_max_payload_bytes,
            settings.max_defer_age_ms / 1000,
        )
        consumer = Consumer(
            self.redis,
            self._connection(name.client_name(self.worker), BLOCKING_TIMEOUT_SECONDS),
            name,
            payload,
            handle,
            options,
            self._announce(queue),
            self.random,
            token=self.token,
            gate=gate,
            on_dead=on_dead,
        )
        self._consumers.append(consumer)
        return consumer

    def leave_alone(self, queue: str) -> None:
        """Work nothing of a queue that is switched off: `/health/detailed` shows it as disabled, which is healthy."""
        self.watch.disable(self.queue(queue))
        self.log.info("queue_disabled", queue=self.settings.queue_name(queue).label)

    def breaker(self, dependency: str, call_seconds: float = 60.0) -> Breaker:
        """Return the circuit breaker of a dependency; no call behind it may take longer than `call_seconds`."""
        return self.breakers.of(dependency, call_seconds)

    def require(self, name: str, ping: Callable[[], Awaitable[None]], where: str = "") -> None:
        """Make readiness depend on `ping` not raising (it gets 500 ms), and the start wait for it.

        `where` is the address for people, without a login.
        """
        self.dependencies.require(Dependency(name, ping, where))

    async def wait_for(self, name: str) -> None:
        """Wait within `on_start` until a required dependency answers; the start's own time limit ends it."""
        await self.dependencies.wait_for(name)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep the connection to Redis, whether or not Redis is there."""
        await self.redis.open()
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.redis.close(), CLOSE_SECONDS)

    @contextlib.asynccontextmanager
    async def watched(self, orders: StopOrders) -> AsyncIterator[None]:
        """Keep the health board true, and look out for what blocks it; a watch that fails is a reason to stop."""
        tasks = [asyncio.create_task(self.watch.beat()), asyncio.create_task(self.watch.look())]
        for task in tasks:
            task.add_done_callback(functools.partial(_report, orders))
        try:
            with LoopGuard(self.health.event_loop, self.metrics).on_guard():
                yield
        finally:
            for task in tasks:
                task.cancel()

    def announce_draining(self) -> None:
        """Be unready at once, and stay live."""
        self.health.enter("draining")
        self.metrics.draining.set(1)

    @contextlib.asynccontextmanager
    async def serving_health(self) -> AsyncIterator[None]:
        """Answer on `HEALTH_PORT`; raises `HealthPortUnavailable`."""
        settings = self.settings
        host, port = settings.health_host, settings.health_port
        server = HealthServer(self.health, self.metrics.scrape, host=host, port=port, doors=self.doors)
        server.start()
        self.log.info("health_server_listening", host=host, port=server.port)
        try:
            yield
        finally:
            self.health.enter("stopped")
            server.stop()

    def _announce(self, queue: str) -> Any:
        label, known = self.settings.queue_name(queue).label, self.metrics.queues
        if label not in known:
            self.watch.count(self.queue(queue))
        concurrency, attempts = self.settings.queue_concurrency, self.settings.queues.of(queue).attempts
        return self.metrics.for_queue(label, concurrency=concurrency, attempts=attempts)

    def _engine_options(self, queue: str) -> EngineOptions:
        settings, options = self.settings, self.settings.queues.of(queue)
        limit = Limit(options.rate_limit_max, options.rate_limit_duration_ms) if options.rate_limit_max else None
        return EngineOptions(
            concurrency=settings.queue_concurrency,
            lock_ms=settings.queue_lock_duration_ms,
            renew_seconds=settings.queue_lock_duration_ms / 1000 / RENEWALS_PER_LOCK,
            stalled_interval_ms=settings.queue_stalled_interval_ms,
            limit=limit,
            worker=self.health.identity.instance,
        )

    def _connection(self, client_name: str, timeout_seconds: float) -> RedisConnection:
        return redis_connection(
            self.settings.redis_address(),
            client_name=client_name,
            timeout_seconds=timeout_seconds,
            on_error=self.metrics.redis_errors.inc,
        )

    async def _ping_redis(self) -> None:
        if self.redis.trouble:
            raise RedisUnavailable(self.redis.trouble)
        await self.redis.call("PING")

    def also_in_flight(self, jobs: Callable[[], list[dict[str, Any]]]) -> None:
        """Show in `/health/detailed` the work of a loop that is no consumer; called from the health server's thread."""
        self._other_work.append(jobs)

    def _jobs_in_flight(self) -> list[dict[str, Any]]:
        now = time.time()
        return [job for jobs in self._other_work for job in jobs()] + [
            {
                "queue": consumer.name,
                "jobId": str(lease.job),
                "name": lease.job.name,
                "ageMs": round((now - lease.since) * 1000),
            }
            for consumer in self._consumers
            for lease in consumer.engine.leases
        ]

    def _job_metrics(self) -> dict[str, Any]:
        return {
            "concurrency": self.settings.queue_concurrency,
            "inFlight": sum(consumer.engine.in_flight for consumer in self._consumers)
            + sum(len(jobs()) for jobs in self._other_work),
            **self.metrics.job_totals(),
        }


def _report(orders: StopOrders, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        orders.give(Ending(FAILED, f"the watch over this worker crashed: {type(error).__name__}: {error}"))


def installed_version() -> str:
    """Return the version of what is installed."""
    try:
        return version("intelliflow-workers")
    except PackageNotFoundError:
        return "unknown"
