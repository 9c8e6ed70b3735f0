"""What an operator writes, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import pytest
from pydantic import Field, model_validator

from worker_runtime.redis.address import RedisAddress, Server
from worker_runtime.settings import (
    DatabaseUrl,
    HealthPort,
    Milliseconds,
    SettingsError,
    ShownAs,
    WorkerSettings,
    load,
    warnings_about,
)

if TYPE_CHECKING:
    from pathlib import Path


class SomeSettings(WorkerSettings):
    """Of some worker."""

    health_port: HealthPort = 3999
    database_url: DatabaseUrl = Field(description="needed")
    outbox_poll_interval_ms: Annotated[Milliseconds, Field(le=60_000), ShownAs("pollIntervalMs")] = Field(
        100, description="pause"
    )


def problems(kind: type[WorkerSettings] = WorkerSettings) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(kind)
    return caught.value.problems


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


SEED_AND_CONTRACT_DEFAULTS = {
    "redis_host": "localhost",
    "redis_port": 6379,
    "redis_password": None,
    "redis_db": 0,
    "redis_tls": False,
    "log_level": "info",
    "health_host": "127.0.0.1",
    "health_port": 3100,
    "start_timeout_ms": 60_000,
    "shutdown_timeout_ms": 30_000,
    "loop_stall_limit_ms": 5_000,
    "otel_exporter_otlp_endpoint": None,
    "queue_prefix": "intelliflow",
    "queue_concurrency": 10,
    "queue_lock_duration_ms": 10_000,
    "queue_stalled_interval_ms": 2_500,
    "queue_max_payload_bytes": 2_097_152,
    "retry_honour_producer": False,
    "max_defer_age_ms": 86_400_000,
    "circuit_breaker_failure_threshold": 5,
    "circuit_breaker_reset_timeout_ms": 60_000,
    "job_queue_enabled": True,
}


def test_the_defaults_are_those_of_the_runbook_and_the_contract() -> None:
    settings = load(WorkerSettings)
    assert {name: getattr(settings, name) for name in SEED_AND_CONTRACT_DEFAULTS} == SEED_AND_CONTRACT_DEFAULTS


@pytest.mark.parametrize(
    ("queue", "label", "attempts", "first_delays", "limit"),
    [
        ("EVENTS", "intelliflow:events", 3, (1, 5), 0),
        ("TEXT_EXTRACTION", "intelliflow:text-extraction", 3, (1, 5), 0),
        ("OCR_PROCESSING", "intelliflow:ocr-processing", 2, (1,), 0),
        ("EMBEDDING_GENERATION", "intelliflow:embedding-generation", 3, (1, 5), 0),
        ("EMAIL", "intelliflow:notifications:email", 5, (1, 5, 30, 150), 10),
        ("SMS", "intelliflow:notifications:sms", 3, (1, 5), 0),
        ("WEBHOOK", "intelliflow:notifications:webhook", 5, (1, 5, 30, 150), 100),
    ],
)
def test_each_queue_has_its_name_attempts_delays_and_limit(
    queue: str, label: str, attempts: int, first_delays: tuple[int, ...], limit: int
) -> None:
    settings = load(WorkerSettings)
    policy = settings.retry_policy(queue)
    assert settings.queue_name(queue).label == label
    assert policy.max_attempts == attempts
    assert policy.delays_seconds[: attempts - 1] == first_delays
    assert settings.queues.of(queue).rate_limit_max == limit


def test_a_queue_can_be_elsewhere_and_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        QUEUE_PREFIX="{acme}",
        QUEUE_EVENTS_PREFIX="bull",
        QUEUE_EVENTS_NAME="domain-events",
        RETRY_EMAIL_ATTEMPTS="2",
        RETRY_EVENTS_DELAYS_MS="100, 200",
        QUEUE_RATE_LIMIT_EMAIL_MAX="0",
    )
    settings = load(WorkerSettings)
    assert settings.queue_name("EVENTS").label == "bull:domain-events"
    assert settings.queue_name("EMAIL").label == "{acme}:notifications:email"
    assert settings.retry_policy("EMAIL").max_attempts == 2
    assert settings.retry_policy("EVENTS").delays_seconds == (0.1, 0.2)
    assert settings.queues.of("EMAIL").rate_limit_max == 0
    assert settings.queues.of("WEBHOOK").rate_limit_max == 100


def test_what_a_variable_narrows_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(WorkerSettings):
        pause_ms: Annotated[Milliseconds, Field(ge=50, le=60_000)] = 250

    given(monkeypatch, PAUSE_MS="1")
    assert problems(Narrow) == ["PAUSE_MS='1' is too small; allowed: a whole number from 50 to 60000"]


def test_all_problems_are_told_together_each_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        SHUTDOWN_TIMEOUT_MS="abc",
        HEALTH_PORT="70000",
        LOG_LEVEL="loud",
        REDIS_TLS="perhaps",
        QUEUE_RATE_LIMIT_EMAIL_MAX="-1",
        RETRY_EVENTS_ATTEMPTS="21",
        OUTBOX_POLL_INTERVAL_MS="0",
    )
    assert sorted(problems(SomeSettings)) == [
        "DATABASE_URL is not set; allowed: postgresql://, user and password if any, host, port, /database",
        "HEALTH_PORT='70000' is too large; allowed: a whole number from 0 to 65535",
        "LOG_LEVEL='loud' is none of the choices; allowed: one of debug, info, warn, error",
        "OUTBOX_POLL_INTERVAL_MS='0' is too small; allowed: a whole number from 1 to 60000",
        "QUEUE_RATE_LIMIT_EMAIL_MAX='-1' is too small; allowed: a whole number from 0",
        "REDIS_TLS='perhaps' is neither true nor false; allowed: true or false",
        "RETRY_EVENTS_ATTEMPTS='21' is too large; allowed: a whole number from 1 to 20",
        "SHUTDOWN_TIMEOUT_MS='abc' is not a whole number; allowed: a whole number from 1",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EGRESS_ALLOWED_CIDRS", "10.0.0.0/8,300.0.0.1"),
        ("JOB_QUEUE_DATABASE_URL", "mysql://x/y"),
        ("REDIS_URL", "http://localhost"),
        ("QUEUE_EVENTS_NAME", "a:b"),
    ],
)
def test_a_wrong_value_is_refused_also_for_features_to_come(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    given(monkeypatch, **{name: value})
    (line,) = problems()
    assert line.startswith(name)
    assert "allowed: " in line


class Contradictory(WorkerSettings):
    """Of a worker with two settings that do not go together."""

    @model_validator(mode="after")
    def _never_both(self) -> Self:
        if self.redis_tls and self.redis_port == 6379:
            raise ValueError("REDIS_TLS=true: not on port 6379; allowed: another REDIS_PORT")
        return self


def test_a_contradiction_is_told_beside_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, REDIS_TLS="true")
    assert problems(Contradictory) == ["REDIS_TLS=true: not on port 6379; allowed: another REDIS_PORT"]
    given(monkeypatch, SHUTDOWN_TIMEOUT_MS="abc")
    assert [line.split("=")[0] for line in problems(Contradictory)] == ["SHUTDOWN_TIMEOUT_MS", "REDIS_TLS"]


CLUSTER = {"REDIS_CLUSTER": "true", "QUEUE_PREFIX": "{intelliflow}"}


def test_a_cluster_and_sentinels_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **CLUSTER, REDIS_HOST="c", REDIS_USERNAME="u")
    assert load(WorkerSettings).redis_address() == RedisAddress(Server("c", username="u"), cluster=True)
    monkeypatch.delenv("REDIS_CLUSTER")
    given(monkeypatch, REDIS_SENTINELS=":hush@s1,s2:2", REDIS_SENTINEL_MASTER="m", REDIS_TLS="true", REDIS_HOST="x")
    settings = load(WorkerSettings)
    sentinels = (Server("s1", 26379, password="hush", tls=True), Server("s2", 2, tls=True))
    assert settings.redis_address() == RedisAddress(Server("x", username="u", tls=True), sentinels, "m")
    assert "hush" not in f"{settings!r} {settings.public()}"
    assert any("REDIS_SENTINELS say where" in warning for warning in warnings_about(settings))


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        (
            {"REDIS_SENTINELS": "a"},
            ["REDIS_SENTINELS is set and REDIS_SENTINEL_MASTER is not; allowed: both or neither"],
        ),
        (
            {"REDIS_SENTINEL_MASTER": "m"},
            ["REDIS_SENTINEL_MASTER is set and REDIS_SENTINELS is not; allowed: both or neither"],
        ),
        (
            {"REDIS_CLUSTER": "true"},
            ["REDIS_CLUSTER=true and QUEUE_PREFIX='intelliflow': needs a hash tag; allowed: like {intelliflow}"],
        ),
        (
            CLUSTER | {"QUEUE_EMAIL_PREFIX": "mail", "REDIS_URL": "redis://h/2"},
            [
                "REDIS_CLUSTER=true and database 2: a cluster has none but 0; allowed: 0",
                "REDIS_CLUSTER=true and QUEUE_EMAIL_PREFIX='mail': needs a hash tag; allowed: like {mail}",
            ],
        ),
        (
            CLUSTER | {"REDIS_SENTINELS": "a", "REDIS_SENTINEL_MASTER": "m"},
            ["REDIS_CLUSTER=true and REDIS_SENTINELS: a cluster has no Sentinels; allowed: one of the two"],
        ),
    ],
)
def test_what_does_not_scale_together_is_told_line_by_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], lines: list[str]
) -> None:
    given(monkeypatch, **variables)
    assert problems() == lines


@pytest.mark.parametrize("value", [",", "hush:port"])
def test_sentinels_that_cannot_be_read_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    given(monkeypatch, REDIS_SENTINELS=value, REDIS_SENTINEL_MASTER="m")
    assert problems()[0].startswith("REDIS_SENTINELS: ")
    assert "hush" not in str(problems())


def test_an_empty_value_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SHUTDOWN_TIMEOUT_MS="", REDIS_URL="", REDIS_PASSWORD_FILE="", JOB_QUEUE_ENABLED="")
    assert load(WorkerSettings).shutdown_timeout_ms == 30_000


def test_a_secret_may_come_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    given(monkeypatch, REDIS_PASSWORD_FILE=str(tmp_path / "password"), REDIS_HOST="redis", REDIS_USERNAME="app")
    assert load(WorkerSettings).redis_address().server == Server("redis", 6379, "app", "p@ss/word")


def test_a_secret_file_that_cannot_be_read_or_doubles_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given(monkeypatch, REDIS_PASSWORD_FILE=str(tmp_path / "none"), OPS_TOKEN="a", OPS_TOKEN_FILE="b")
    password, token = problems()
    assert password.startswith("REDIS_PASSWORD: REDIS_PASSWORD_FILE names a file that cannot be read")
    assert token.startswith("OPS_TOKEN: both OPS_TOKEN and OPS_TOKEN_FILE are set")


def test_secrets_are_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        REDIS_URL="rediss://u:hush1@host:1/2",
        DATABASE_URL="postgresql://u:hush2@h/d",
        OPS_TOKEN="hush3",
        OTEL_EXPORTER_OTLP_ENDPOINT="https://u:hush4@collector",
    )
    settings = load(SomeSettings)
    shown = f"{settings!r} {settings} {settings.public()}"
    assert "hush1" not in shown
    assert "hush2" not in shown
    assert "hush3" not in shown
    assert "hush4" not in str(settings.public())
    assert settings.public()["redisUrl"] == "***"
    given(monkeypatch, REDIS_URL="smtp://u:hush5@host", DATABASE_URL="mysql://u:hush6@host")
    assert "hush" not in str(problems(SomeSettings))


def test_the_url_of_redis_wins_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, REDIS_URL="redis://one:1/3", REDIS_HOST="two")
    settings = load(WorkerSettings)
    assert settings.redis_address().server == Server("one", 1, database=3)
    assert "REDIS_URL wins: REDIS_HOST ignored" in warnings_about(settings)


def test_a_near_miss_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        RETRY_EMIAL_ATTEMPTS="3",
        OUTBOX_POL_INTERVAL_MS="50",
        REDIS_HOSTNAME="x",
        OTEL_EXPORTER_OTLP_HEADERS="a=b",
        SMTP_HOST="known to another worker",
        HOSTNAME="x",
    )
    warnings = "\n".join(warnings_about(load(WorkerSettings)))
    assert "RETRY_EMIAL_ATTEMPTS is not a variable of this worker; did you mean RETRY_EMAIL_ATTEMPTS?" in warnings
    assert "did you mean OUTBOX_POLL_INTERVAL_MS?" in warnings
    assert "did you mean REDIS_HOST?" in warnings
    assert "OTEL_" not in warnings
    assert "SMTP_HOST" not in warnings


def test_times_that_break_a_promise_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        QUEUE_LOCK_DURATION_MS="20000",
        QUEUE_STALLED_INTERVAL_MS="30000",
        LOOP_STALL_LIMIT_MS="500",
    )
    warnings = "\n".join(warnings_about(load(WorkerSettings)))
    assert "longer than 15 s" in warnings
    assert "longer than QUEUE_LOCK_DURATION_MS" in warnings
    assert "LOOP_STALL_LIMIT_MS" in warnings


def test_the_view_for_health_uses_the_runbooks_names(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATABASE_URL="postgresql://h/d", OUTBOX_POLL_INTERVAL_MS="250")
    shown = load(SomeSettings).public()
    assert shown["pollIntervalMs"] == 250
    assert shown["concurrency"] == 10
    assert shown["healthPort"] == 3999
    assert shown["queues"]["email"]["rateLimitMax"] == 10


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(WorkerSettings).queue_concurrency = 1  # type: ignore[misc]
