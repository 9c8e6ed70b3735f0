"""A worker process that is killed: `python isolation_owner.py WORK_DIR` starts tasks that never end and says so."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from isolating import hostile_isolation


async def own(work_dir: Path) -> None:
    async with hostile_isolation(work_dir, document_slots=3) as isolation, isolation.working_folder() as folder:
        tasks = [
            asyncio.create_task(isolation.run(task, order, folder))
            for task, order in (("hang", {}), ("leave_children", {"end": "never"}), ("spin", {}))
        ]
        print("working", flush=True)  # noqa: T201  the test waits for it
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(own(Path(sys.argv[1])))
