"""How rows become what the engine knows, and the words that several statements share."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from worker_runtime.postgres import BY_INDEX, UnreadableJson, read_json
from workflow_worker.execution import ChildEnd, Delivery, Execution, Lease, StepRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

__all__ = ["ACTIVE", "ALLOWED", "ROW_BY_ROW", "Past", "execution_of"]

# What a worker asks is about a few rows of tables that may hold millions; the planner knows what they held some time
# ago. A merge or a hash reads a table from end to end: with a million rows one claim took seven seconds.
ROW_BY_ROW = {
    **BY_INDEX,
    "enable_mergejoin": "off",
    "enable_hashjoin": "off",
    # Planning a claim takes longer than most claims do.
    "plan_cache_mode": "force_generic_plan",
}
# As the partial index has it.
ACTIVE = "status IN ('queued', 'running', 'waiting', 'retry_pending')"
# Of an organisation's row `settings`: whether anything of it may run.
ALLOWED = "settings.fw_execution_worker_enabled AND settings.fw_worker_paused_at IS NULL"


def execution_of(row: Mapping[str, Any], past: Past) -> Execution:
    """Return the execution of a claimed row."""
    key = row["id"]
    given = past.read(key, row["input"], "its input")
    return Execution(
        lease=Lease(key, row["lease_token"]),
        organization_id=row["organization_id"],
        rule_id=row["rule_id"],
        rule_version=row["rule_version"],
        workflow=row["workflow"],
        workflow_version=row["workflow_version"],
        input=given,
        created_at=row["created_at"],
        claimed_at=row["heartbeat_at"],
        waited_seconds=row["waited"],
        visibility_seconds=row["visibility_seconds"],
        round=row["round"],
        retry_count=row["retry_count"],
        total_attempts=row["total_attempts"],
        crash_count=row["crash_count"],
        cancel_requested=row["cancel_requested"],
        trace=row["trace"],
        parent_id=row["parent_id"],
        records=past.records.get(key, ()),
        deliveries=past.deliveries.get(key, {}),
        children=past.children.get(key, {}),
        unreadable=past.unreadable.get(key),
    )


class Past:
    """What executions have behind them, by their ids; and what of theirs cannot be read, which is theirs alone."""

    def __init__(self) -> None:
        self.records: dict[UUID, list[StepRecord]] = defaultdict(list)
        self.deliveries: dict[UUID, dict[str, Delivery]] = defaultdict(dict)
        self.children: dict[UUID, dict[str, ChildEnd]] = defaultdict(dict)
        self.unreadable: dict[UUID, str] = {}

    def read(self, execution: UUID, text: str | None, what: str) -> Any:
        """Return a column's JSON; of what cannot be read, note why."""
        if text is None:
            return None
        try:
            return read_json(text)
        except UnreadableJson as error:
            self.unreadable[execution] = f"{what} {error}"
            return None

    def add_record(self, row: Mapping[str, Any]) -> None:
        """Add a step's row."""
        key = row["execution_id"]
        record = StepRecord(
            step=row["step"],
            kind=row["kind"],
            status=row["status"],
            output=self.read(key, row["output"], f"the output of step {row['step']}"),
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            attempt=row["attempt"],
            error=row["error"],
        )
        self.records[key].append(record)

    def add_delivery(self, row: Mapping[str, Any]) -> None:
        """Add a signal that a step waits for."""
        key, step = row["execution_id"], row["step"]
        payload = self.read(key, row["payload"], f"the signal of step {step}")
        self.deliveries[key][step] = Delivery(row["id"], payload)

    def add_child(self, row: Mapping[str, Any]) -> None:
        """Add an execution that has ended and was started by a step."""
        key = row["parent_id"]
        result = self.read(key, row["result"], f"the result of execution {row['id']}")
        self.children[key][row["id"]] = ChildEnd(row["status"], result, row["last_error"])
