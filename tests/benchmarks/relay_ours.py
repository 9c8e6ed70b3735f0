"""Our relay with everything it has in production: leases, tokens, turns, the reconciler. See relay_node.mjs."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import structlog
import uvloop

from outbox_harness import opened_bench, running


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    async with opened_bench(os.environ["REDIS_URL"], os.environ["DATABASE_URL"]) as bench:
        options = {"batch_size": int(os.environ["BATCH"]), "poll_seconds": 0.1, "balance_seconds": 0.5}
        async with bench.instance(**options, reconcile_seconds=5.0) as instance:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            async with running([instance.partitions]):
                # Those that start together have shared the partitions out by then.
                await asyncio.to_thread(sys.stdin.readline)
                async with running([instance.relay, instance.reconciler]):
                    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
