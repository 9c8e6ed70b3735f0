"""A DBOS worker in the configuration that did best here; see `docs/explanation/performance.md`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from dbos import DBOS

from benchmarks.workflows.effects import step, step_in_thread

QUEUE, WORKFLOW, VERSION = "bench", "bench.three", "1"
AT_ONCE = int(os.environ.get("DBOS_AT_ONCE", "100"))
POLL_SECONDS = float(os.environ.get("DBOS_POLL_SECONDS", "0.05"))
CONNECTIONS = int(os.environ.get("DBOS_CONNECTIONS", "20"))
THREADS = int(os.environ.get("DBOS_THREADS", "20"))


@DBOS.step(name="step")  # type: ignore[untyped-decorator]
async def awaited(number: int, place: int) -> dict[str, Any]:
    return await step(number, place)


async def three(order: dict[str, Any]) -> dict[str, Any]:
    first = await awaited(order["number"], 1)
    second = await awaited(order["number"], 2)
    third = await awaited(order["number"], 3)
    return {"amount": first["amount"] + second["amount"] + third["amount"]}


@DBOS.step(name="step in a thread")  # type: ignore[untyped-decorator]
def called(number: int, place: int) -> dict[str, Any]:
    return step_in_thread(number, place)


def three_in_thread(order: dict[str, Any]) -> dict[str, Any]:
    first = called(order["number"], 1)
    second = called(order["number"], 2)
    third = called(order["number"], 3)
    return {"amount": first["amount"] + second["amount"] + third["amount"]}


async def launch(*, listen: bool) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": os.environ["DATABASE_URL"],
            "application_version": VERSION,
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": THREADS,
            "log_level": "ERROR",
        }
    )
    DBOS.listen_queues([QUEUE] if listen else [])
    DBOS.launch()
    await DBOS.register_queue_async(QUEUE, worker_concurrency=AT_ONCE or None, polling_interval_sec=POLL_SECONDS)


async def main() -> None:
    # Launched within a loop, DBOS runs its workflows on that. One of uvloop is no faster: its time goes to threads.
    DBOS.workflow(name=WORKFLOW)(three_in_thread if "threads" in sys.argv else three)
    await launch(listen=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
