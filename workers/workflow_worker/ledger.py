"""Where turns write: what several say at the same time is one transaction, and an outage is waited out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from worker_runtime.batching import Batcher
from worker_runtime.postgres import DatabaseUnavailable
from workflow_worker.execution import LeaseLost
from workflow_worker.store.ledger import RowHeld, Standing, Unwritable, Write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workflow_worker.store.ledger import LedgerStore

__all__ = ["Ledger", "Standing", "Unwritable", "Write"]

log = structlog.get_logger()

MOST_WRITES = 200
HELD_SECONDS = 1.0
PATIENCE_SECONDS = (0.1, 0.25, 0.5, 1.0)


class Ledger:
    """Every write is made or refused: what a step did must be noted, as long as nobody else has the execution."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._write = Batcher(self._patiently, MOST_WRITES)

    async def write(self, write: Write) -> Standing:
        """Return once it is safe; raises `LeaseLost` when it may not be written any more, and `Unwritable`."""
        while isinstance(standing := await self._write(write), RowHeld):
            log.warning("workflow_row_held_by_another", executionId=str(write.execution.id))
            await asyncio.sleep(HELD_SECONDS)
        if isinstance(standing, Unwritable):
            raise standing
        if standing is None:
            raise LeaseLost(str(write.execution.id))
        return standing

    async def _patiently(self, writes: Sequence[Write]) -> Sequence[Standing | Unwritable | RowHeld | None]:
        failures = 0
        while True:
            try:
                return await self._store.write(writes)
            except (Unwritable, RowHeld) as error:
                if len(writes) == 1:
                    return [error]
                # One of them: the others shall not suffer for it.
                return [(await self._patiently([write]))[0] for write in writes]
            except DatabaseUnavailable as outage:
                # It may have been written after all: the tokens tell, and a record that is written again is the same.
                log.warning("workflow_ledger_waits", executions=len(writes), error=str(outage))
                await asyncio.sleep(PATIENCE_SECONDS[min(failures, len(PATIENCE_SECONDS) - 1)])
                failures += 1
