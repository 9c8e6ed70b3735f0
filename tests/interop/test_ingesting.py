"""A Node producer has a document read by our ingestion-worker, and hears how far it is and what came of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from document_desk import document_desk
from interop.node_peer import node_peer
from worker_runtime.bullmq.names import QueueName

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("node", "npm")


async def test_node_hears_how_far_a_document_is_and_what_came_of_it(
    packages: Path, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    with document_desk(redis_url, database_url, tmp_path) as desk:
        key = desk.sample("lease.pdf")
        await asyncio.to_thread(desk.worker().ready)
        async with node_peer(packages, redis_url, QueueName("intelliflow", "text-extraction")) as node:
            await node.listen()
            asked = {"documentId": "d-1", "tenantId": "t-1", "sourceUrl": key, "format": "pdf"}
            added = await node.queue("add", "extract", asked)
            progress = await node.hears("progress", within=30, jobId=added["id"])
            assert progress["data"] == {"stage": "extract", "done": 2, "total": 2}
            completed = await node.hears("completed", within=30, jobId=added["id"])
            job = await node.queue("getJob", added["id"])
    result = completed["returnvalue"]
    result = json.loads(result) if isinstance(result, str) else result
    assert (result["state"], result["pages"], result["unchanged"]) == ("read", 2, False)
    assert job["returnvalue"] == result
    assert job["attemptsMade"] == 1
