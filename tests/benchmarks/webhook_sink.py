"""A webhook receiver in a process of its own: answers 204, and tells how long each call was on its way.

It says its port, and for each line on standard input what it got since: a JSON list of milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from aiohttp import web

ARRIVED: list[float] = []


async def receive(request: web.Request) -> web.Response:
    sent_at = json.loads(await request.read())["at"]
    ARRIVED.append((time.monotonic() - sent_at) * 1000)
    return web.Response(status=204)


async def main() -> None:
    application = web.Application()
    application.router.add_post("/", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say(str(runner.addresses[0][1]))
    while await asyncio.to_thread(sys.stdin.readline):
        say(json.dumps(ARRIVED))
        ARRIVED.clear()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
