from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from chaos.history import Pen
from chaos.workflows.ground import Ground
from chaos.workflows.receiver import receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ground(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Ground]:
    """A place for workflow-workers that are to die, on servers shared with other tests."""
    with Pen(tmp_path / "history.ndjson") as pen, receiver(pen, Random(1)) as asked:
        made = Ground(database_url, redis_url, tmp_path, pen)
        made.prepare(asked)
        yield made
        made.end()
