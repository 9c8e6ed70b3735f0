"""A worker's settings: read once, checked as a whole, then frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker_runtime.bullmq.names import QueueName
from worker_runtime.redaction import MASK
from worker_runtime.redis.address import RedisAddress, Server, read_sentinels
from worker_runtime.retry import ScheduledRetry
from worker_runtime.settings import environment, scale_out
from worker_runtime.settings.environment import Environment
from worker_runtime.settings.groups import (
    DatabaseVariables,
    EgressVariables,
    JobQueueVariables,
    LifecycleVariables,
    ObservabilityVariables,
    QueueVariables,
    RedisVariables,
)
from worker_runtime.settings.kinds import ShownAs
from worker_runtime.settings.problems import SettingsError, near_misses, problems_in
from worker_runtime.settings.queues import known_queues, one_schedule
from worker_runtime.settings.variables import note

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

S = TypeVar("S", bound="WorkerSettings")
RECOVERY_PROMISE_MS = 15_000
CALM_STALL_LIMIT_MS = 2_500
REDIS_PARTS = {"redis_host", "redis_port", "redis_username", "redis_password", "redis_db", "redis_tls"}


class WorkerSettings(
    JobQueueVariables,
    EgressVariables,
    DatabaseVariables,
    ObservabilityVariables,
    LifecycleVariables,
    QueueVariables,
    RedisVariables,
):
    """What every worker reads. A worker's own settings class adds its variables and its default `health_port`.

    `own_queues` are the keys of queues beyond the product's; they get the same variables as those.
    """

    own_queues: ClassVar[tuple[str, ...]] = ()
    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  our own reader knows `_FILE` and queues
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what a test passes, then the environment; no dotenv, no secrets folder."""
        return init_settings, Environment(settings_cls)

    def queue_name(self, queue: str) -> QueueName:
        """Return where the queue with that key (`EMAIL`) is; a `KeyError` for a key that is none."""
        known, options = known_queues(self.own_queues)[queue], self.queues.of(queue)
        return QueueName(options.prefix or f"{self.queue_prefix}{known.under}", options.name or known.name)

    def retry_policy(self, queue: str) -> ScheduledRetry:
        """Return the queue's attempts and delays."""
        options = self.queues.of(queue)
        delays = tuple(delay / 1000 for delay in options.delays_ms or one_schedule())
        return ScheduledRetry(options.attempts, delays, self.retry_honour_producer)

    def redis_address(self) -> RedisAddress:
        """Return where Redis is, whichever variables said so."""
        server = self._redis_server()
        sentinels = read_sentinels(_revealed(self.redis_sentinels), tls=server.tls)
        return RedisAddress(server, sentinels, self.redis_sentinel_master or "", self.redis_cluster)

    def _redis_server(self) -> Server:
        if self.redis_url is not None:
            return Server.from_url(self.redis_url.get_secret_value())
        login = (self.redis_username or "", _revealed(self.redis_password))
        return Server(self.redis_host, self.redis_port, *login, self.redis_db, self.redis_tls)

    @model_validator(mode="after")
    def _redis_makes_sense(self) -> Self:
        if wrong := list(scale_out.contradictions(self, self.redis_address())):
            raise ValueError("\n".join(wrong))
        return self

    def warnings(self) -> list[str]:
        """Return what is allowed and probably not meant. Subclasses add to it."""
        found = []
        if self.redis_url and (ignored := self.model_fields_set & REDIS_PARTS):
            found.append(f"REDIS_URL wins: {', '.join(sorted(ignored)).upper()} ignored")
        if self.redis_sentinels and self.model_fields_set & {"redis_host", "redis_port"}:
            found.append("REDIS_SENTINELS say where the master is: REDIS_HOST and REDIS_PORT are ignored")
        if self.queue_lock_duration_ms + self.queue_stalled_interval_ms > RECOVERY_PROMISE_MS:
            found.append(
                "QUEUE_LOCK_DURATION_MS + QUEUE_STALLED_INTERVAL_MS: jobs of a killed worker wait longer than 15 s"
            )
        if self.queue_stalled_interval_ms > self.queue_lock_duration_ms:
            found.append(
                "QUEUE_STALLED_INTERVAL_MS is longer than QUEUE_LOCK_DURATION_MS: orphaned jobs are found late"
            )
        if self.loop_stall_limit_ms < CALM_STALL_LIMIT_MS:
            found.append("LOOP_STALL_LIMIT_MS under 2500: loops beat once a second, so liveness may fail for no reason")
        return found

    def notes(self) -> list[str]:
        """Return what `check` tells of a valid configuration beyond its being valid. Subclasses have something."""
        return []

    def public(self) -> dict[str, Any]:
        """Return the effective settings in camelCase with every secret masked: `.config` of `/health/detailed`."""
        fields = type(self).model_fields
        return {_shown(name, fields[name]): _masked(value) for name, value in self}


def load(settings_type: type[S]) -> S:
    """Read a worker's settings from the environment; raises `SettingsError` with every problem at once."""
    try:
        return settings_type()
    except ValidationError as error:
        problems = problems_in(settings_type, error) + _contradictions(settings_type, error)
        lines = [line for problem in problems for line in problem.splitlines()]
        raise SettingsError(list(dict.fromkeys(lines))) from None  # The cause would repeat secrets.


def _contradictions(settings_type: type[S], error: ValidationError) -> list[str]:
    """Find what pydantic does not look for while a single value is wrong: values that do not go together."""
    wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    fields = {name: field for name, field in settings_type.model_fields.items() if name in wrong}
    defaults = {name: field.get_default(call_default_factory=True, validated_data={}) for name, field in fields.items()}
    try:
        settings_type(**defaults)
    except ValidationError as second:
        return [str(detail["ctx"]["error"]) for detail in second.errors() if not detail["loc"] and "ctx" in detail]
    return []


def warnings_about(settings: WorkerSettings) -> list[str]:
    """Return everything a person should know about a configuration that is valid."""
    return misspelt(type(settings)) + settings.warnings()


def misspelt(settings_type: type[WorkerSettings]) -> list[str]:
    """Return a warning for each set variable that looks like a known one; often why another is not set."""
    return near_misses(settings_type, environment.names())


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _shown(name: str, field: FieldInfo) -> str:
    told = note(field, ShownAs)
    return told.name if told else to_camel(name)


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, (bool, int, float, type(None))):
        return value
    if isinstance(value, (tuple, list)):
        return [_masked(item) for item in value]
    if hasattr(value, "model_dump"):
        return {to_camel(key): _masked(item) for key, item in value}
    return _without_login(str(value))


def _without_login(text: str) -> str:
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
