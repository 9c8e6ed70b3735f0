"""bull-board on queues that our worker works, put up as docs/how-to/bull-board.md says and asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest

from interop.aftermath import until
from interop.behaviours import Actor
from interop.node_packages import HOME, NODE
from interop.our_worker import LIKE_NODE, our_worker
from worker_runtime.bullmq.producer import JobQueue, NewJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

pytestmark = pytest.mark.needs("node", "npm")

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = (HOW_TO / "bull-board.md").read_text()
INSTALL, RUN = (
    command for block in re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL) for command in block.splitlines()
)
# What the interop tests have fetched already is not fetched again.
QUIETLY = {
    "npm_config_cache": str(HOME / "npm"),
    "npm_config_prefer_offline": "true",
    "npm_config_ignore_scripts": "true",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
}
START_SECONDS = 20.0
A_MINUTE_MS = 60_000


class Board:
    """bull-board's HTTP, about one queue."""

    def __init__(self, session: aiohttp.ClientSession, url: str, queue: QueueName) -> None:
        self._session = session
        self._url = f"{url}/api/queues"
        self._label = queue.label

    async def overview(self, status: str) -> dict[str, Any]:
        """Return what the page of the queue shows, with the jobs of that status."""
        asked = {"activeQueue": self._label, "status": status, "page": "1", "jobsPerPage": "50"}
        async with self._session.get(self._url, params=asked) as answer:
            queues = (await answer.json())["queues"]
        return next(queue for queue in queues if queue["name"] == self._label)

    async def jobs(self, status: str) -> dict[str, dict[str, Any]]:
        return {job["id"]: job for job in (await self.overview(status))["jobs"]}

    async def get(self, path: str) -> Any:
        async with self._session.get(f"{self._url}/{quote(self._label)}/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def put(self, path: str) -> None:
        async with self._session.put(f"{self._url}/{quote(self._label)}/{path}") as answer:
            assert answer.status in (200, 204), await answer.text()


@pytest.fixture
async def board(packages: Path, tmp_path: Path, redis_url: str, queue_name: QueueName) -> AsyncIterator[Board]:
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    async with put_up(tmp_path, redis_url) as url, aiohttp.ClientSession() as session:
        yield Board(session, url, queue_name)


@contextlib.asynccontextmanager
async def put_up(folder: Path, redis_url: str) -> AsyncIterator[str]:
    """Run the page's program with the page's command and return its address."""
    (folder / "board.mjs").write_text((HOW_TO / "examples" / "board.mjs").read_text())
    process = await asyncio.create_subprocess_exec(
        *RUN.split(),
        cwd=folder,
        env={**os.environ, "REDIS_URL": redis_url, "PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.communicate()


@pytest.fixture
async def queue(redis: RedisConnection, queue_name: QueueName) -> JobQueue:
    return JobQueue(redis, queue_name)


async def ended(queue: JobQueue, number: int) -> None:
    async def enough() -> bool:
        counts = await queue.counts()
        return counts.completed + counts.failed == number

    await until(enough)


async def test_it_shows_our_jobs_as_it_shows_node_s(
    board: Board, queue: JobQueue, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    options = replace(LIKE_NODE, worker="host:1", metrics_minutes=60)
    async with our_worker(redis, redis_url, queue_name, options, Actor()):
        await queue.add_bulk(
            [
                NewJob("complete", {"n": "é"}, job_id="good"),
                NewJob("fail", {"times": 9, "says": "the gateway is closed"}, job_id="bad", options={"attempts": 2}),
                NewJob("log", {"steps": ["one", "two"]}, job_id="logs"),
                NewJob("progress", {"steps": {"percent": 50}}, job_id="half"),
                NewJob("complete", {}, job_id="late", delay_ms=A_MINUTE_MS),
                NewJob("complete", {}, job_id="low", priority=7),
            ]
        )
        await ended(queue, 5)
        completed, failed, delayed = [await board.jobs(status) for status in ("completed", "failed", "delayed")]
        workers = (await board.get("workers"))["workers"]
    assert set(completed) == {"good", "logs", "half", "low"}
    assert completed["good"]["returnValue"] == {"echoed": "é"}
    assert completed["half"]["progress"] == {"percent": 50}
    assert completed["good"]["processedBy"] == "host:1"
    assert completed["good"]["attempts"] == 1
    assert await board.get("logs/logs") == ["one", "two"]
    bad = failed["bad"]
    assert bad["failedReason"] == "HANDLER_FAILED: RuntimeError: the gateway is closed"
    assert bad["attempts"] == 2
    assert len(bad["stacktrace"]) == 2
    assert "behaviours.py" in bad["stacktrace"][0]
    assert delayed["late"]["delay"] == A_MINUTE_MS
    assert [worker["name"] for worker in workers] == ["host:1"]
    metrics = await board.get("metrics")
    assert (metrics["completed"]["meta"]["count"], metrics["failed"]["meta"]["count"]) == (4, 1)


async def test_it_retries_our_dead_letters_and_our_worker_completes_them(
    board: Board, queue: JobQueue, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    async with our_worker(redis, redis_url, queue_name, handle=Actor()):
        names = ("one", "two", "three")
        await queue.add_bulk([NewJob("fail", {"times": 1, "says": "no"}, job_id=name) for name in names])
        await ended(queue, 3)
        assert set(await board.jobs("failed")) == set(names)
        await board.put("one/retry")
        await until_completed(board, {"one"})
        await board.put("retry/failed")
        await until_completed(board, set(names))
    assert (await queue.counts()).failed == 0
    assert {job["attempts"] for job in (await board.jobs("completed")).values()} == {2}


async def test_it_pauses_resumes_promotes_and_cleans_what_our_worker_works(
    board: Board, queue: JobQueue, redis: RedisConnection, redis_url: str, queue_name: QueueName
) -> None:
    async with our_worker(redis, redis_url, queue_name, handle=Actor()) as ours:
        await board.put("pause")
        assert (await queue.counts()).paused
        await queue.add_bulk(
            [
                NewJob("complete", {}, job_id="now"),
                *(NewJob("complete", {}, job_id=n, delay_ms=A_MINUTE_MS) for n in "ab"),
            ]
        )
        await board.put("a/promote")
        assert set(await board.jobs("waiting")) == {"now", "a"}
        assert ours.ids == []
        await board.put("resume")
        await until_completed(board, {"now", "a"})
        await board.put("promote")
        await until_completed(board, {"now", "a", "b"})
        await board.put("now/clean")
    assert set(await board.jobs("completed")) == {"a", "b"}


async def until_completed(board: Board, wanted: set[str]) -> None:
    async def there() -> bool:
        return set(await board.jobs("completed")) == wanted

    await until(there)


async def test_the_page_s_install_command_brings_what_its_program_needs(tmp_path: Path, redis_url: str) -> None:
    pinned = json.loads((NODE / "package.json").read_text())["dependencies"]
    assert {name: pinned[name] for name, _ in map(split_version, INSTALL.split()[2:])} == dict(
        map(split_version, INSTALL.split()[2:])
    )
    install = await asyncio.create_subprocess_exec(*INSTALL.split(), cwd=tmp_path, env={**os.environ, **QUIETLY})
    assert await install.wait() == 0
    async with put_up(tmp_path, redis_url) as url:
        assert url.startswith("http://127.0.0.1:")


def split_version(package: str) -> tuple[str, str]:
    name, _, version = package.rpartition("@")
    return name, version


def test_the_page_shows_the_program_as_it_is() -> None:
    assert re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL) == [(HOW_TO / "examples" / "board.mjs").read_text()]
