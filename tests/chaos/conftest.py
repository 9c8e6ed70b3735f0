from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from chaos.events import TABLES
from chaos.history import Pen
from chaos.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import RedisServer


@pytest.fixture
def site(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A place for workers that are to die, on servers shared with other tests."""
    yield from a_site(database_url, redis_url, tmp_path)


@pytest.fixture
def site_on_its_own_redis(own_redis: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A place for workers whose Redis is to go away."""
    yield from a_site(database_url, own_redis.url, tmp_path)


def a_site(database_url: str, redis_url: str, folder: Path) -> Iterator[Site]:
    with psycopg.connect(database_url) as connection:
        connection.execute(TABLES)
    with Pen(folder / "history.ndjson") as pen:
        made = Site(database_url, redis_url, folder, pen)
        yield made
        made.end()
