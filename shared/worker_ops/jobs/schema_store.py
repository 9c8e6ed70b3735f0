"""What the jobs database lacks of the schema that this release needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.jobs.schema import engine_migrations, shipped_migrations
from worker_runtime.postgres import SchemaOutdated

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

__all__ = ["REMEDY", "SchemaStore"]

REMEDY = "./scripts/jobs/apply-schema.sh"
IS_THERE = "SELECT to_regclass($1) IS NOT NULL"
# The record of Procrastinate's migrations, and of ours.
RECORDS = {
    "jobs_ops.engine_migrations": "SELECT name FROM jobs_ops.engine_migrations",
    "_yoyo_migration": "SELECT migration_id FROM _yoyo_migration",
}


class SchemaStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def refuse_old(self) -> None:
        """Raise `SchemaOutdated` unless the schema is current."""
        if missing := await self.missing():
            raise SchemaOutdated(f"the jobs database lacks {missing[0]}: run {REMEDY} (`intelliflow jobs migrate`)")

    async def missing(self) -> list[str]:
        """Return the migrations that were not applied, oldest first; a newer schema lacks nothing."""
        applied = {name for table, names in RECORDS.items() for name in await self._names(table, names)}
        needed = [*engine_migrations(), *(migration.id for migration in shipped_migrations())]
        return [name for name in needed if name not in applied]

    async def _names(self, table: str, names: str) -> list[str]:
        async with self._database.connected() as connection:
            if not await connection.fetchval(IS_THERE, table):
                return []
            return [row[0] for row in await connection.fetch(names)]
