"""Real servers for every test: started once per test process, private to it, emptied between tests."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
import structlog
from hypothesis import HealthCheck, settings

from embedded_stack import Mailbox, PostgresServer, RedisServer, postgres_server, redis_server
from embedded_stack.postgres import create_database, drop_database
from worker_ops.jobs.schema import migrate_jobs
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below .cache/, like everything else that `./dev clean` removes.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[1] / ".cache" / "hypothesis"))
# Its first use in a checkout builds tables for a second, which it then holds against the test that happened to ask.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = ["left_out"]
log = logging.getLogger(__name__)

# Read before any test runs, because no test sees them: see `product_environment_unset`.
EXTERNAL_REDIS = os.environ.get("REDIS_URL")
EXTERNAL_POSTGRES = os.environ.get("DATABASE_URL")

PRODUCT_VARIABLES = (
    "AWS_",
    "CALLBACK_",
    "CIRCUIT_BREAKER_",
    "CLAMAV_",
    "DATABASE_URL",
    "DOCUMENT",
    "EGRESS_",
    "EMBEDDING_",
    "EMAIL_",
    "ENABLE_",
    "EVENT_HANDLERS",
    "EVENT_RULES_FILE",
    "GOOGLE_VISION_",
    "FETCH_",
    "HEALTH_",
    "JOB_QUEUE_",
    "LOG_",
    "LOOP_STALL_LIMIT_MS",
    "MAX_DEFER_AGE_MS",
    "MESSAGEBIRD_",
    "OCR_",
    "OPS_TOKEN",
    "OTEL_",
    "OUTBOX_",
    "PUBLIC_BASE_URL",
    "PREFERENCES_HOOK",
    "QUEUE_",
    "QUIET_",
    "REDIS_",
    "RETRY_",
    "SHUTDOWN_TIMEOUT_MS",
    "SMS_",
    "SMTP_",
    "START_TIMEOUT_MS",
    "STORAGE_URL",
    "WEBHOOK_",
    "WORKFLOW_",
    "SLACK_",
    "TENANT_",
    "TESSERACT_CMD",
    "TWILIO_",
)


@pytest.fixture(autouse=True)
def product_environment_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable in the developer's shell decides nothing here, nor in the processes a test starts."""
    for name in list(os.environ):
        if name.startswith(PRODUCT_VARIABLES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def logs_as_they_are_by_default() -> Iterator[None]:
    """What a command that ran within a test set up for its own log is forgotten."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres_server(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def redis_for_all(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address that `redis_url` hands to one test after another."""
    if not EXTERNAL_REDIS:
        yield request.getfixturevalue("redis_of_session").url
        return
    url = database_of_this_process(EXTERNAL_REDIS)
    with redis.Redis.from_url(url) as client:
        if client.dbsize():
            number = urlsplit(url).path.strip("/")
            pytest.exit(f"the tests empty the Redis database they use, and number {number} holds keys: name another", 1)
        yield url
        client.flushdb()


@pytest.fixture
def redis_url(redis_for_all: str) -> str:
    """An empty Redis database that no other test uses at the same time."""
    with redis.Redis.from_url(redis_for_all) as client:
        client.flushdb()
    return redis_for_all


@pytest.fixture(scope="session")
def migrated_template(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The administrative address of the server and the name of a database with the current schema in it."""
    server_url: str = EXTERNAL_POSTGRES or request.getfixturevalue("postgres_of_session").url
    template = f"template_{uuid4().hex}"
    create_database(server_url, template)
    migrate(with_database(server_url, template), log.info)
    yield server_url, template
    drop_database(server_url, template)


@pytest.fixture
def database_url(migrated_template: tuple[str, str]) -> Iterator[str]:
    """A database of the test's own with the current schema and no rows."""
    server_url, template = migrated_template
    name = f"test_{uuid4().hex}"
    create_database(server_url, name, template=template)
    yield with_database(server_url, name)
    drop_database(server_url, name)


@pytest.fixture(scope="session")
def migrated_jobs_template(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The same for the database of the side effects."""
    server_url: str = EXTERNAL_POSTGRES or request.getfixturevalue("postgres_of_session").url
    template = f"template_{uuid4().hex}"
    create_database(server_url, template)
    migrate_jobs(with_database(server_url, template), log.info)
    yield server_url, template
    drop_database(server_url, template)


@pytest.fixture
def jobs_database_url(migrated_jobs_template: tuple[str, str]) -> Iterator[str]:
    """A database for side effects of the test's own, with no jobs."""
    server_url, template = migrated_jobs_template
    name = f"test_{uuid4().hex}"
    create_database(server_url, name, template=template)
    yield with_database(server_url, name)
    drop_database(server_url, name)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """An SMTP server of the test's own: STARTTLS required, no login."""
    with Mailbox() as box:
        yield box


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A durable Redis of the test's own, to be killed, frozen and restarted."""
    with redis_server(tmp_path / "own redis") as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A durable PostgreSQL of the test's own with the current schema, to be killed, frozen and restarted."""
    with postgres_server(tmp_path / "own postgres") as server:
        migrate(server.url, log.info)
        yield server


def database_of_this_process(url: str) -> str:
    """Give each of pytest-xdist's processes a database number of its own, counting from the one named."""
    parts = urlsplit(url)
    process = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return parts._replace(path=f"/{int(parts.path.strip('/') or 0) + int(process)}").geturl()


def with_database(server_url: str, name: str) -> str:
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()
