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


@pytest.fixture
def site(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A place for workers that are to die, on servers shared with other tests."""
    with psycopg.connect(database_url) as connection:
        connection.execute(TABLES)
    with Pen(tmp_path / "history.ndjson") as pen:
        made = Site(database_url, redis_url, tmp_path, pen)
        yield made
        made.end()
