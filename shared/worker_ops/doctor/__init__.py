"""`intelliflow doctor`: looks at everything that can be wrong in the databases, and says what helps."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from events_worker.store import UpkeepStore
from worker_ops.doctor import findings
from worker_ops.doctor.jobs import examine_jobs
from worker_ops.doctor.store import DoctorStore
from worker_ops.doctor.workflows import examine_workflows
from worker_ops.doctor.workflows_store import WorkflowsView
from worker_ops.exit_codes import ExitCode
from worker_ops.jobs.opened import JobsOperatorSettings
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import opened_database

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.doctor.findings import Finding


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="look for what is wrong, and say what helps")
    add_output(parser)
    parser.set_defaults(
        command=lambda asked, settings: asyncio.run(_doctor(asked, settings)), settings_type=JobsOperatorSettings
    )


async def _doctor(asked: argparse.Namespace, settings: JobsOperatorSettings) -> ExitCode:
    found = []
    if settings.database_url is not None or settings.job_queue_database_url is None:
        async with opened_database(settings) as database:
            found += await examine(DoctorStore(database), UpkeepStore(database), WorkflowsView(database))
    if settings.job_queue_database_url is not None:
        found += await examine_jobs(settings)
    rows = [
        {
            "check": finding.check,
            "status": "attention" if finding.remedy else "ok",
            "found": finding.found,
            "remedy": finding.remedy or None,
        }
        for finding in found
    ]
    write_rows(rows, asked.output)
    needing = sum(bool(finding.remedy) for finding in found)
    if needing:
        say(f"{needing} of {len(found)} need attention")
    return ExitCode.PARTIAL if needing else ExitCode.OK


async def examine(store: DoctorStore, upkeep: UpkeepStore, workflows: WorkflowsView) -> list[Finding]:
    """Look at everything, the most urgent first."""
    lag = await upkeep.lag()
    return [
        findings.lag(lag),
        findings.dead_letters(lag),
        *findings.under_way(await store.under_way(findings.LONG_UNDER_WAY_SECONDS)),
        findings.partitions(await store.ownerless()),
        findings.deliveries(await store.stuck(findings.LONG_BEGUN_SECONDS)),
        findings.endpoints(await store.disabled()),
        *findings.documents(await store.documents(findings.LONG_UNREAD_SECONDS)),
        *await examine_workflows(workflows),
        findings.transaction(await store.oldest_transaction()),
        findings.vacuums(await store.vacuums()),
        findings.indexes(await store.indexes()),
        await _clocks(store),
        findings.archive(await store.archive()),
    ]


async def _clocks(store: DoctorStore) -> Finding:
    before = time.time()
    database = await store.clock()
    after = time.time()
    return findings.clock(database, (before + after) / 2, (after - before) / 2)
