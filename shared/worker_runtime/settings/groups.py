"""The variables every worker reads, one class for each group. Defaults and meanings are the operator's contract."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from worker_runtime.redis.address import read_sentinels
from worker_runtime.settings.kinds import (
    Allowed,
    HealthPort,
    KeyPart,
    Milliseconds,
    Networks,
    Port,
    ShownAs,
    WebAddress,
    url_with_scheme,
)
from worker_runtime.settings.queues import Queues


def _redis_url(value: SecretStr) -> SecretStr:
    url_with_scheme("redis", "rediss")(value.get_secret_value())
    return value


def _sentinels(value: SecretStr) -> SecretStr:
    if not read_sentinels(value.get_secret_value(), tls=False):
        raise ValueError("names nobody")
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    url_with_scheme("postgresql", "postgres")(value.get_secret_value())
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


RedisUrl = Annotated[
    SecretStr,
    AfterValidator(_redis_url),
    Allowed("redis[s]://, user and password if any, host, port, /database number"),
]
Sentinels = Annotated[
    SecretStr,
    AfterValidator(_sentinels),
    Allowed("host:port, several separated by commas; user:password@ before those that ask for a login"),
]
DatabaseUrl = Annotated[
    SecretStr,
    AfterValidator(_postgres_url),
    Allowed("postgresql://, user and password if any, host, port, /database"),
]
LogLevel = Annotated[Literal["debug", "info", "warn", "error"], BeforeValidator(_lower)]


class RedisVariables(BaseSettings):
    """Redis."""

    redis_url: RedisUrl | None = Field(None, description="where Redis is; wins over the variables below")
    redis_host: str = Field("localhost", description="Redis host")
    redis_port: Port = Field(6379, description="Redis port")
    redis_username: str | None = Field(None, description="Redis user (ACL)")
    redis_password: SecretStr | None = Field(None, description="Redis password")
    redis_db: int = Field(0, ge=0, description="Redis database number")
    redis_tls: bool = Field(default=False, description="encrypt the connection to Redis")
    redis_sentinels: Sentinels | None = Field(None, description="whom to ask which server is the master")
    redis_sentinel_master: str | None = Field(None, description="name the Sentinels give the master")
    redis_cluster: bool = Field(
        default=False, description="Redis is a cluster, and the server above one of it; prefixes need a hash tag"
    )


class QueueVariables(BaseSettings):
    """Queues, retries and circuit breakers."""

    queue_prefix: KeyPart = Field("intelliflow", description="replaces the leading `intelliflow` of every queue")
    queue_concurrency: Annotated[int, Field(ge=1, le=1000), ShownAs("concurrency")] = Field(
        10, description="jobs in flight per queue and process"
    )
    queue_lock_duration_ms: int = Field(
        10_000, ge=1000, description="how long a job belongs to a worker that stopped renewing (every fifth of it)"
    )
    queue_stalled_interval_ms: int = Field(2_500, ge=100, description="pause between two searches for orphaned jobs")
    queue_max_payload_bytes: int = Field(2_097_152, ge=1, description="larger jobs become dead letters")
    queues: Queues = Field(default_factory=Queues, description="the variables of each queue")
    retry_honour_producer: bool = Field(
        default=False,
        description="a job's own `attempts` (1 to 20) wins over the table",
    )
    max_defer_age_ms: Milliseconds = Field(86_400_000, description="a job deferred for longer becomes a dead letter")
    circuit_breaker_failure_threshold: int = Field(5, ge=1, description="failures in a row that open a circuit")
    circuit_breaker_reset_timeout_ms: Annotated[Milliseconds, ShownAs("resetTimeoutMs")] = Field(
        60_000, description="how long an open circuit refuses before one probe may pass"
    )


class LifecycleVariables(BaseSettings):
    """Start, stop and health."""

    health_host: str = Field("127.0.0.1", min_length=1, description="address the health server listens on")
    health_port: HealthPort = 3100
    start_timeout_ms: Milliseconds = Field(60_000, description="how long the start waits for what it requires")
    shutdown_timeout_ms: Milliseconds = Field(30_000, description="how long jobs in flight may run on after a stop")
    loop_stall_limit_ms: int = Field(
        5_000, ge=100, description="liveness answers 503 when a loop has not turned for this long"
    )
    ops_token: SecretStr | None = Field(
        None, description="what `/admin/...` asks for; without it nothing on `HEALTH_PORT` changes anything"
    )


class ObservabilityVariables(BaseSettings):
    """Logs and traces."""

    log_level: LogLevel = Field("info", description="least severe line that is logged")
    otel_exporter_otlp_endpoint: WebAddress | None = Field(
        None, description="where traces are sent (OTLP over HTTP); nothing is sent without it"
    )


class DatabaseVariables(BaseSettings):
    """PostgreSQL."""

    database_url: DatabaseUrl | None = Field(None, description="PostgreSQL database of the product")


class EgressVariables(BaseSettings):
    """Requests to addresses that tenants choose."""

    egress_allowed_cidrs: Networks = Field(
        (), description="networks that webhooks may reach by http or on unusual ports, or though they are private"
    )


class JobQueueVariables(BaseSettings):
    """Side effects."""

    job_queue_database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL database of the side effects (postgres-jobs)"
    )
    job_queue_enabled: bool = Field(
        default=True, description="let an API run the jobs-worker within its own process (the lifespan of FastAPI)"
    )
