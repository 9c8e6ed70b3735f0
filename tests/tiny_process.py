"""A tiny worker as the process it is, with its log lines and its health server in the test's hands."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SCRIPT = Path(__file__).with_name("tiny_worker.py")
PATIENCE_SECONDS = 30.0


class TinyProcess:
    """One run of the tiny worker. Its lines are read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def said(self, event: str, matching: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        """Wait for a log line with that event; fails when the process ends without it."""
        async with self._patience(PATIENCE_SECONDS, f"log line {event}"), self._news:
            while True:
                for line in self.lines:
                    if line["event"] == event and matching(line):
                        return line
                assert not self._reader.done(), f"ended without saying {event}: {self.lines}"
                await self._news.wait()

    async def get(self, path: str) -> tuple[int, Any]:
        """Ask its health server."""
        port = (await self.said("health_server_listening"))["port"]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            body = await answer.text()
            return answer.status, json.loads(body) if answer.content_type == "application/json" else body

    async def answers(self, path: str, status: int, within: float = PATIENCE_SECONDS) -> Any:
        """Wait until `path` answers with that status, and return the body."""
        body: Any = None
        async with self._patience(within, f"{path} to answer {status}"):
            while True:
                answered, body = await self.get(path)
                if answered == status:
                    return body
                await asyncio.sleep(0.02)  # A status cannot tell when it changes; asking is the event.

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float = PATIENCE_SECONDS) -> tuple[int, str]:
        """Wait for the end; return the exit code and the reason in the last line."""
        async with self._patience(within, "the end"):
            await self.process.wait()
            await self._reader
        last = self.lines[-1]
        assert last["event"] == "worker_stopped", self.lines
        assert last["exitCode"] == self.process.returncode
        return last["exitCode"], last["reason"]

    @asynccontextmanager
    async def _patience(self, seconds: float, awaited: str) -> AsyncIterator[None]:
        """Fail after `seconds` with what the worker said until then."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            pytest.fail(f"waited {seconds} s for {awaited}; the worker said {self.lines}")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.lines.append(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def tiny(redis_url: str, *arguments: str, **settings: str) -> AsyncIterator[TinyProcess]:
    """Start a tiny worker; it is killed at the end if it still runs."""
    environment = {"REDIS_URL": redis_url, "PATH": "/usr/bin:/bin", **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    running = TinyProcess(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await running._reader
