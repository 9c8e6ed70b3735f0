"""The relay a Python team would write with asyncpg and the `bullmq` package. It keeps no order. See relay_node.mjs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import asyncpg
import uvloop
from bullmq import Queue

PENDING = """
SELECT * FROM domain_event_outbox WHERE processed_at IS NULL ORDER BY position LIMIT $1 FOR UPDATE SKIP LOCKED
"""
PUBLISHED = "UPDATE domain_event_outbox SET status = 'processed', processed_at = now() WHERE id = ANY ($1)"


def envelope(row: Any) -> dict[str, Any]:
    at = row["created_at"].isoformat()
    return {
        "eventId": str(row["id"]),
        "eventType": row["event_type"],
        "aggregateType": row["aggregate_type"],
        "aggregateId": row["aggregate_id"],
        "tenantId": row["tenant_id"],
        "metadata": {"timestamp": at, "version": "1.0", **json.loads(row["metadata"])},
        "occurredAt": at,
        "sequence": row["position"],
        "payload": json.loads(row["payload"]),
    }


async def main() -> None:
    database = await asyncpg.connect(os.environ["DATABASE_URL"])
    queue = Queue("events", {"connection": os.environ["REDIS_URL"], "prefix": "intelliflow"})
    await queue.getJobCounts("wait")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    while True:
        async with database.transaction():
            rows = await database.fetch(PENDING, int(os.environ["BATCH"]))
            if rows:
                jobs = [(row["event_type"], envelope(row), {"jobId": str(row["id"])}) for row in rows]
                await queue.addBulk([{"name": name, "data": data, "opts": opts} for name, data, opts in jobs])
                await database.execute(PUBLISHED, [row["id"] for row in rows])
        if not rows:
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    uvloop.run(main())
