"""Starts executions as an application does: by SQL, many in a statement."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks.workflows.task import do
from worker_ops.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Sequence

ENABLE = """
INSERT INTO fw_module_settings
       (organization_id, fw_execution_worker_enabled, fw_worker_batch_size, fw_worker_max_concurrency)
VALUES ('org-1', true, 50, 1000)
"""
# Otherwise known once a worker has had it.
ANNOUNCE = "INSERT INTO fw_workflow_code (workflow, version) VALUES ('bench.three', 1)"
START = "SELECT fw_workflow_start('org-1', 'bench.three', given) FROM unnest($1::jsonb[]) AS given"


class OurStarter:
    """One connection."""

    async def prepare(self) -> None:
        await asyncio.to_thread(migrate, os.environ["DATABASE_URL"], lambda _: None)
        await self.open()
        await self._connection.execute(ENABLE)
        await self._connection.execute(ANNOUNCE)

    async def open(self) -> None:
        self._connection = await asyncpg.connect(os.environ["DATABASE_URL"])

    async def start(self, inputs: Sequence[dict[str, Any]]) -> None:
        await self._connection.fetch(START, [json.dumps(one) for one in inputs])
        if "HINT" in os.environ:
            # After the commit: within it, writers would wait for each other.
            await self._connection.execute("NOTIFY workflow_executions")


if __name__ == "__main__":
    asyncio.run(do(OurStarter()))
