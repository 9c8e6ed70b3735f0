"""Definitions, as the organisations have saved them; and which workflows in Python there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_runtime.postgres import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from worker_runtime.postgres import Database

__all__ = ["DefinitionStore"]

READ = "SELECT definition FROM fw_workflow_definitions WHERE rule_id = $1 AND version = $2"
ANNOUNCE = """
INSERT INTO fw_workflow_code (workflow, version) SELECT * FROM unnest($1::text[], $2::integer[])
    ON CONFLICT (workflow, version) DO UPDATE SET announced_at = excluded.announced_at
"""


class DefinitionStore:
    """Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, rule_id: UUID, version: int) -> Any:
        """Return a definition's JSON; `None` when there is none of that version. Raises `UnreadableJson`."""
        async with self._database.connected() as connection:
            text = await connection.fetchval(READ, rule_id, version)
        return None if text is None else read_json(text)

    async def announce(self, workflows: Iterable[tuple[str, int]]) -> None:
        """Let everybody start these workflows in Python."""
        if known := sorted(workflows):
            async with self._database.connected() as connection:
                await connection.execute(ANNOUNCE, *map(list, zip(*known, strict=True)))
