from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interop.node_packages import node_packages
from interop.node_peer import NodePeer, node_peer
from worker_runtime.bullmq.names import QueueName
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="session")
def packages() -> Path:
    return node_packages()


@pytest.fixture
def queue_name() -> QueueName:
    """The queue whose prefix holds a colon, as Node asks for it."""
    return QueueName("intelliflow:notifications", "email")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(redis_url, client_name="interop", timeout_seconds=5)
    await connection.open()
    yield connection
    await connection.close()


@pytest.fixture
async def node(packages: Path, redis_url: str, queue_name: QueueName) -> AsyncIterator[NodePeer]:
    async with node_peer(packages, redis_url, queue_name) as peer:
        yield peer
