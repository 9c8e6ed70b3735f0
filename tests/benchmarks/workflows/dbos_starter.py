"""Starts executions as an application does that is no DBOS worker: by its client, many in a transaction."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import sqlalchemy
from dbos import DBOSClient

from benchmarks.workflows.dbos_worker import QUEUE, WORKFLOW, launch
from benchmarks.workflows.task import do

if TYPE_CHECKING:
    from collections.abc import Sequence


class DbosStarter:
    """`DBOSClient.enqueue` would wait for the disk once for each."""

    async def prepare(self) -> None:
        await launch(listen=False)

    async def open(self) -> None:
        url = sqlalchemy.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
        self._engine = sqlalchemy.create_engine(url)
        self._client = DBOSClient(system_database_url=os.environ["DATABASE_URL"])

    async def start(self, inputs: Sequence[dict[str, Any]]) -> None:
        with self._engine.begin() as connection:
            for one in inputs:
                options: Any = {"workflow_name": WORKFLOW, "queue_name": QUEUE}
                self._client.enqueue_in_transaction(connection, options, one)


if __name__ == "__main__":
    asyncio.run(do(DbosStarter()))
    os._exit(0)  # Its threads would be waited for.
