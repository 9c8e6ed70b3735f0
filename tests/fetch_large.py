"""A process that fetches one large document and tells what that cost: memory above what it had, and the loop's stalls.

python fetch_large.py <settings as JSON> <url>
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ingestion_worker.fetching.fetch import opened_fetcher
from ingestion_worker.fetching.settings import FetchingSettings

BEAT_SECONDS = 0.002


def memory(field: str) -> int:
    """Read a line of /proc/self/status, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def forget_the_peak() -> None:
    """Have the kernel count the peak of this process's memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


async def beats(late: list[float]) -> None:
    """Note how late each beat of the loop is, in seconds."""
    while True:
        due = time.monotonic() + BEAT_SECONDS
        # The beat itself is what is measured.
        await asyncio.sleep(BEAT_SECONDS)
        late.append(time.monotonic() - due)


async def measured(settings: FetchingSettings, url: str, folder: Path) -> dict[str, Any]:
    late: list[float] = []
    async with opened_fetcher(settings) as fetcher:
        with suppress(Exception):  # A first look, so that what is loaded once is not counted.
            await fetcher.fetch(f"{url}.small", folder)
        forget_the_peak()
        before = memory("VmRSS")
        beating = asyncio.create_task(beats(late))
        began = time.monotonic()
        fetched = await fetcher.fetch(url, folder)
        seconds = time.monotonic() - began
        beating.cancel()
    late.sort()
    return {
        "sha256": fetched.sha256.hex(),
        "grown": memory("VmHWM") - before,
        "p99": late[int(len(late) * 0.99)],
        "most": late[-1],
        "seconds": seconds,
        "rate": fetched.size / seconds / 1e6,
    }


def main() -> None:
    settings = FetchingSettings.model_validate_json(sys.argv[1])
    with TemporaryDirectory() as folder:
        costs = asyncio.run(measured(settings, sys.argv[2], Path(folder)))
    sys.stdout.write(json.dumps(costs))


if __name__ == "__main__":
    main()
