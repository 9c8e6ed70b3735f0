"""The page for authors of workers: its files are real, its commands run, its list of names is the list."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import worker_runtime
from engine_harness import until
from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-a-worker.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
SHOUT = QueueName("intelliflow", "shout")
COMMANDS = [line for block in re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def environment(redis_url: str, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "REDIS_URL": redis_url, "HEALTH_PORT": "0", **more}


def test_the_page_shows_the_files_as_they_are() -> None:
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert shown == [(EXAMPLES / name).read_text() for name in ("shout_worker.py", "test_shout_worker.py")]


def test_a_whole_worker_takes_under_thirty_lines() -> None:
    lines = (EXAMPLES / "shout_worker.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 30


def test_the_page_names_what_is_public_and_nothing_else() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) != []
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(worker_runtime.__all__)
    assert len(worker_runtime.__all__) <= 15


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(redis_url: str, command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment(redis_url), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_worker_of_the_page_works_as_a_process(redis_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "shout_worker.py"), env=environment(redis_url), stdout=subprocess.DEVNULL
    )
    redis = RedisConnection(redis_url, client_name="test")
    await redis.open()
    try:
        queue = JobQueue(redis, SHOUT)
        await queue.add(NewJob("loud", {"text": "hello"}, job_id="one"))

        async def completed() -> bool:
            return (await queue.counts()).completed == 1

        await until(completed, within=20)
        assert json.loads(await redis.call("HGET", SHOUT.key("one"), "returnvalue")) == "HELLO"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 143
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await redis.close()


def test_a_queue_of_a_worker_s_own_has_the_variables_of_every_queue() -> None:
    wrong = environment("redis://localhost:6379", RETRY_SHOUT_ATTEMPTS="99", QUEUE_RATE_LIMIT_SHOUT_MAX="-1")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "shout_worker.py", "check"], env=wrong, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "RETRY_SHOUT_ATTEMPTS='99' is too large; allowed: a whole number from 1 to 20" in done.stdout
    assert "QUEUE_RATE_LIMIT_SHOUT_MAX='-1' is too small" in done.stdout
