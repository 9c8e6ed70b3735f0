"""`intelliflow workflow settings`: what an organisation has set, and how its workers do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, at, say, write_record, write_rows
from worker_ops.servers import command_over
from worker_ops.workflow.settings_store import SETTINGS, SettingsStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_ops.arguments import Commands

BATCH_SIZES = (1, 50)
VISIBILITY_SECONDS = (30, 600)
CONCURRENCIES = (1, 10_000)
# The schedule as the database's owner would set it again.
SCHEDULE = (
    "SELECT cron.schedule('process-workflow-queue', '* * * * *',"
    " $$SELECT util.invoke_edge_function('workflow-executor-worker', '{}'::jsonb);$$)"
)


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("settings", help="show or change what organisations have set, and how their workers do")
    parser.add_argument("organization", metavar="ORG", nargs="?", help="of this organisation (default: all)")
    switch = parser.add_mutually_exclusive_group()
    switch.add_argument("--enable", dest="enabled", action="store_true", default=None, help="let its workflows run")
    switch.add_argument("--disable", dest="enabled", action="store_false", help="start none of them any more")
    _add_number(parser, "--batch-size", BATCH_SIZES, "executions that a worker takes at a time")
    _add_number(parser, "--visibility-timeout", VISIBILITY_SECONDS, "seconds after which a lost one is another's")
    _add_number(parser, "--max-concurrency", CONCURRENCIES, "executions at work at the same time, in all workers")
    add_output(parser)
    parser.set_defaults(command=command_over(SettingsStore, _settings))


def _add_number(parser: argparse.ArgumentParser, flag: str, limits: tuple[int, int], meaning: str) -> None:
    low, high = limits
    parser.add_argument(flag, metavar="N", type=_within(low, high), help=f"{meaning} ({low} to {high})")


def _within(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


async def _settings(asked: argparse.Namespace, store: SettingsStore) -> ExitCode:
    changes = {name: getattr(asked, name) for name in SETTINGS}
    changing = any(value is not None for value in changes.values())
    if asked.organization is None:
        if changing:
            raise CommandFailed(ExitCode.USAGE, "say whose settings to change: `intelliflow workflow settings ORG ...`")
        write_rows([settings_row(row) for row in await store.some()], asked.output)
        return ExitCode.OK
    if changing:
        await store.change(asked.organization, changes)
    found = await one(store, asked.organization)
    write_record(settings_row(found), asked.output)
    await tell_what_stops(store, found)
    return ExitCode.OK


async def one(store: SettingsStore, organization: str) -> Any:
    """Return the settings of an organisation; raises `CommandFailed`."""
    found = await store.some(organization)
    if not found:
        reason = f"{organization} has no settings yet, so nothing of it runs: `--enable` makes them"
        raise CommandFailed(ExitCode.NOT_FOUND, reason)
    return found[0]


async def tell_what_stops(store: SettingsStore, row: Any | None) -> None:
    """Say why executions of an organisation would only wait; `row` is its settings, `None` when it has none."""
    if row is None or not row["enabled"]:
        say("its workflows do not run: `intelliflow workflow settings ORG --enable` lets them")
    elif row["paused_at"]:
        say(f"it is paused ({row['pause_reason']}): `intelliflow workflow resume {row['organization']}` ends that")
    if not await store.scheduled():
        say(f"nothing starts, for the job process-workflow-queue is not scheduled or not active: {SCHEDULE}")


def settings_row(row: Any) -> dict[str, Any]:
    """Write the settings of an organisation."""
    return {
        "organizationId": row["organization"],
        "enabled": row["enabled"],
        "batchSize": row["batch_size"],
        "visibilityTimeoutSeconds": row["visibility_timeout"],
        "maxConcurrency": row["max_concurrency"],
        "paused": at(row["paused_at"]),
        "pauseReason": row["pause_reason"],
        "workerRunning": row["worker_running"],
        "workerLastRun": at(row["worker_last_run_at"]),
        "workerLastBatchSize": row["worker_last_batch_size"],
        "atWork": row["at_work"],
        "ready": row["ready"],
        "later": row["later"],
    }
