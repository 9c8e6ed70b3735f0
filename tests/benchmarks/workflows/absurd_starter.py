"""Starts executions by Absurd's SDK, many in a transaction."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import psycopg
from absurd_sdk import AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from benchmarks.workflows.absurd_worker import QUEUE, TASK
from benchmarks.workflows.task import do

if TYPE_CHECKING:
    from collections.abc import Sequence


class AbsurdStarter:
    """One connection, on which the SDK spawns."""

    async def prepare(self) -> None:
        await self.open()
        await self._connection.execute(BUNDLED_SCHEMA_SQL)
        await self._absurd.create_queue(QUEUE)

    async def open(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
        self._absurd = AsyncAbsurd(self._connection, queue_name=QUEUE)

    async def start(self, inputs: Sequence[dict[str, Any]]) -> None:
        async with self._connection.transaction():
            for one in inputs:
                await self._absurd.spawn(TASK, one, queue=QUEUE)


if __name__ == "__main__":
    asyncio.run(do(AbsurdStarter()))
