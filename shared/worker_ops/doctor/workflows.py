"""What the doctor makes of the workflows it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.doctor.findings import Finding
from worker_ops.workflow.settings import SCHEDULE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_ops.doctor.workflows_store import WorkflowsView

# A lease is at most ten minutes long, and a worker that lives renews it long before.
LONG_READY_SECONDS = 600.0


async def examine_workflows(view: WorkflowsView) -> list[Finding]:
    """Look at everything about workflows, the most urgent first."""
    seen = await view.late(LONG_READY_SECONDS)
    return [
        schedule(await view.schedule()),
        leases(seen),
        ready(seen),
        switched_off(seen),
        dead_letters(await view.dead()),
        code(await view.unannounced()),
    ]


def schedule(seen: Mapping[str, Any]) -> Finding:
    """Judge whether workers may start anything at all."""
    state = "scheduled" if seen["scheduled"] else "not scheduled, or not active"
    found = f"process-workflow-queue is {state}; {seen['unfinished']} executions are not over"
    needed = seen["unfinished"] and not seen["scheduled"]
    return Finding("workflow schedule", found, f"`{SCHEDULE}` in psql: until then nothing starts" if needed else "")


def leases(seen: Mapping[str, Any]) -> Finding:
    """Judge executions whose worker has gone and that nobody has taken over."""
    found = f"{seen['lost']} lost their worker more than {LONG_READY_SECONDS / 60:.0f} minutes ago"
    remedy = f"start a workflow-worker: it takes them over; `intelliflow workflow show {seen['a_lost']}` is one"
    return Finding("workflow leases", found, remedy if seen["lost"] else "")


def ready(seen: Mapping[str, Any]) -> Finding:
    """Judge executions that might run and do not."""
    found = f"{seen['late']} ready for more than {LONG_READY_SECONDS / 60:.0f} minutes"
    remedy = (
        f"start a workflow-worker, or more of them; `intelliflow workflow settings {seen['a_late']}` says how many of"
        " it are at work, `--max-concurrency` how many may be"
    )
    return Finding("workflows", found, remedy if seen["late"] else "")


def switched_off(seen: Mapping[str, Any]) -> Finding:
    """Judge what waits because somebody has switched its organisation off, and perhaps forgotten it."""
    found = f"{seen['disabled']} wait for organisations that are disabled, {seen['paused']} for paused ones"
    if seen["disabled"]:
        name = seen["a_disabled"]
        remedy = f"`intelliflow workflow settings {name} --enable`, or `intelliflow workflow purge {name}`"
    else:
        remedy = f"`intelliflow workflow resume {seen['a_paused']}`" if seen["paused"] else ""
    return Finding("workflow organisations", found, remedy)


def dead_letters(seen: Mapping[str, Any]) -> Finding:
    """Judge executions that failed for good."""
    found = f"{seen['dead']} dead letters, {seen['fresh']} of the last hour"
    remedy = "`intelliflow workflow list --status failed --group` says what they died of; then retry or purge them"
    return Finding("workflow dead letters", found, remedy if seen["dead"] else "")


def code(seen: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge workflows in Python that nobody could run."""
    if not seen:
        return Finding("workflow code", "every workflow in Python is known to a worker")
    found = ", ".join(f"no worker has had {one['workflow']} ({one['waiting']} wait for it)" for one in seen)
    name = seen[0]["workflow"]
    remedy = f"start a workflow-worker whose WORKFLOW_PACKAGES hold it, or `intelliflow workflow cancel --rule {name}`"
    return Finding("workflow code", found, remedy)
