"""A Node process that does with BullMQ what a test asks of it: produce, work, listen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from typing import TYPE_CHECKING, Any

from interop.node_packages import NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from worker_runtime.bullmq.names import QueueName

ANSWER_SECONDS = 20.0
END_SECONDS = 10.0
LONGEST_LINE = 16 * 1024 * 1024

News = dict[str, Any]


class NodeRefusedError(Exception):
    """BullMQ threw; the message is its own."""


class NodePeer:
    """BullMQ on one queue, in Node. `news` is what its worker did and its QueueEvents heard, in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.news: list[News] = []
        self.process = process
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._something_new = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def queue(self, method: str, *args: Any) -> Any:
        """Call a method of Node's `Queue`; jobs come back as their `toJSON`."""
        return await self._ask("queue", method, args)

    async def job(self, job_id: str, method: str, *args: Any) -> Any:
        """Call a method of Node's `Job`."""
        return await self._ask("job", method, args, job=job_id)

    async def flow(self, method: str, *args: Any) -> Any:
        """Call a method of Node's `FlowProducer`."""
        return await self._ask("flow", method, args)

    async def work(self, **options: Any) -> None:
        """Start Node's `Worker` with these options; each job's name says how it behaves."""
        await self._ask("worker", "start", [options])

    async def stop_working(self) -> None:
        await self._ask("worker", "close", [])

    async def release(self, job_id: str) -> None:
        """Let a job end that holds its worker."""
        await self._ask("worker", "release", [job_id])

    async def options(self) -> News:
        """Return what its worker goes by, defaults included."""
        options: News = await self._ask("worker", "options", [])
        return options

    async def abandon(self) -> str:
        """Take a job as a worker that dies at once, and return its id."""
        return str(await self._ask("worker", "abandon", []))

    async def listen(self) -> None:
        """Start Node's `QueueEvents`, from the beginning of the stream."""
        await self._ask("events", "start", [])

    async def hears(self, news: str, within: float = 15.0, **fields: Any) -> News:
        """Wait for the first news of this kind with these fields; earlier ones count."""
        return (await self.hears_many(1, news, within, **fields))[0]

    async def hears_many(self, number: int, news: str, within: float = 15.0, **fields: Any) -> list[News]:
        """Wait for so many."""
        wanted = {"news": news, **fields}
        return await self._until(number, lambda item: wanted.items() <= item.items(), within)

    async def _until(self, number: int, fits: Callable[[News], bool], within: float) -> list[News]:
        async with asyncio.timeout(within):
            while len(found := [item for item in self.news if fits(item)]) < number:
                self._something_new.clear()
                await self._something_new.wait()
        return found

    async def _ask(self, target: str, method: str, args: Any, **more: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        request = {"id": number, "on": target, "method": method, "args": list(args), **more}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            return await answer

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # It was killed in the middle of a word.
            message = json.loads(line)
            if "news" in message:
                self.news.append(message)
                self._something_new.set()
            elif (error := message.get("error")) is not None:
                self._answers.pop(message["id"]).set_exception(NodeRefusedError(error))
            else:
                self._answers.pop(message["id"]).set_result(message["result"])
        for answer in self._answers.values():
            answer.set_exception(NodeRefusedError("the Node process ended"))

    async def kill(self) -> None:
        """End it with SIGKILL: nothing is settled, renewed or closed."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reader

    async def end(self) -> None:
        """Close its standard input, upon which it exits; gone when this returns."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), END_SECONDS)
        await self.kill()


@contextlib.asynccontextmanager
async def node_peer(packages: Path, url: str, queue: QueueName) -> AsyncIterator[NodePeer]:
    """Run a Node process on one queue for the length of the block."""
    peer = NodePeer(await spawn(packages, url, queue))
    try:
        yield peer
    finally:
        await peer.end()


async def spawn(packages: Path, url: str, queue: QueueName) -> asyncio.subprocess.Process:
    settings = json.dumps({"url": url, "prefix": queue.prefix, "name": queue.name})
    return await asyncio.create_subprocess_exec(
        "node",
        str(NODE / "peer.mjs"),
        str(packages),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        env={**os.environ, "PEER": settings},
    )
