"""The workflows that organisations have defined. SQL of `intelliflow workflow rules`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

SOME = """
SELECT rule.id, rule.organization_id, rule.name, rule.active, rule.current_version, rule.trigger_event,
       rule.created_at, rule.changed_at, definition.definition
  FROM fw_workflow_rules AS rule
  JOIN fw_workflow_definitions AS definition ON definition.rule_id = rule.id
                                            AND definition.version = coalesce($3::integer, rule.current_version)
 WHERE ($1::text IS NULL OR rule.organization_id = $1) AND ($2::text IS NULL OR rule.name = $2)
 ORDER BY rule.organization_id, rule.name
"""
VERSIONS = "SELECT version, created_at FROM fw_workflow_definitions WHERE rule_id = $1 ORDER BY version"
# Whoever saves the same rule at the same time waits here.
RULE = """
INSERT INTO fw_workflow_rules AS rule (organization_id, name, trigger_event) VALUES ($1, $2, $3)
    ON CONFLICT (organization_id, name) DO UPDATE SET name = excluded.name
RETURNING rule.id, rule.active
"""
NEWEST = """
SELECT version, definition = $2::jsonb AS same FROM fw_workflow_definitions
 WHERE rule_id = $1 ORDER BY version DESC LIMIT 1
"""
ADD = "INSERT INTO fw_workflow_definitions (rule_id, version, definition) VALUES ($1, $2, $3::jsonb)"
CURRENT = """
UPDATE fw_workflow_rules SET current_version = $2, trigger_event = $3, changed_at = clock_timestamp()
 WHERE id = $1 AND (current_version, trigger_event) IS DISTINCT FROM ($2, $3)
"""
SWITCH = """
UPDATE fw_workflow_rules SET active = $3, changed_at = clock_timestamp()
 WHERE organization_id = $1 AND name = $2
RETURNING true
"""
ANNOUNCED = "SELECT EXISTS (SELECT FROM fw_workflow_code WHERE workflow = $1)"


@dataclass(frozen=True, slots=True)
class Saved:
    """A rule's version that holds what was saved; `new` if there was none that did."""

    version: int
    new: bool
    active: bool


class RulesStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, organization: str, name: str, trigger: str | None, definition: str) -> Saved:
        """Make a definition (JSON) the current version of a rule, which may be new."""
        async with self._database.transaction() as connection:
            rule = await connection.fetchrow(RULE, organization, name, trigger)
            newest = await connection.fetchrow(NEWEST, rule["id"], definition)
            new = newest is None or not newest["same"]
            version = (newest["version"] if newest else 0) + new
            if new:
                await connection.execute(ADD, rule["id"], version, definition)
            await connection.execute(CURRENT, rule["id"], version, trigger)
        return Saved(version, new, rule["active"])

    async def some(self, organization: str | None, name: str | None = None, version: int | None = None) -> list[Any]:
        """Return rules with their current definition, or that of a version."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(SOME, organization, name, version))

    async def versions(self, rule: Any) -> list[Any]:
        """Return the versions of a rule and when each was saved."""
        async with self._database.connected() as connection:
            return list(await connection.fetch(VERSIONS, rule))

    async def switch(self, organization: str, name: str, *, active: bool) -> bool:
        """Let a rule be started or not; tell whether there is such a rule."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(SWITCH, organization, name, active))

    async def is_announced(self, workflow: str) -> bool:
        """Tell whether a worker has had that workflow in Python."""
        async with self._database.connected() as connection:
            return bool(await connection.fetchval(ANNOUNCED, workflow))
