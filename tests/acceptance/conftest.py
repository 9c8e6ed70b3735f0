from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker_suite import Suite, running_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import Mailbox, PostgresServer, RedisServer


@pytest.fixture
def suite(redis_url: str, database_url: str, mailbox: Mailbox, tmp_path: Path) -> Iterator[Suite]:
    """Workers on servers shared with other tests: for what breaks workers only."""
    with running_suite(redis_url, database_url, mailbox, tmp_path) as running:
        yield running


@pytest.fixture
def own_suite(
    own_redis: RedisServer, own_postgres: PostgresServer, mailbox: Mailbox, tmp_path: Path
) -> Iterator[Suite]:
    """Workers on servers of their own: for what breaks those."""
    with running_suite(own_redis.url, own_postgres.url, mailbox, tmp_path) as running:
        yield running
