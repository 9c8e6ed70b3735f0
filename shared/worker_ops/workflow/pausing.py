"""`intelliflow workflow pause` and `resume`: an organisation's executions stand still, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_record
from worker_ops.servers import command_over
from worker_ops.workflow.settings import one, settings_row, tell_what_stops
from worker_ops.workflow.settings_store import SettingsStore

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verbs."""
    pause = verbs.add_parser("pause", help="let nothing of an organisation go on; what is queued stays")
    pause.add_argument("organization", metavar="ORG")
    pause.add_argument("--reason", metavar="WHY", required=True, help="why; shown to whoever asks")
    add_output(pause)
    pause.set_defaults(command=command_over(SettingsStore, _pause))
    resume = verbs.add_parser("resume", help="let a paused organisation go on")
    resume.add_argument("organization", metavar="ORG")
    add_output(resume)
    resume.set_defaults(command=command_over(SettingsStore, _resume))


async def _pause(asked: argparse.Namespace, store: SettingsStore) -> ExitCode:
    if not await store.pause(asked.organization, asked.reason):
        raise _unknown(asked.organization)
    row = await one(store, asked.organization)
    write_record(settings_row(row), asked.output)
    if row["at_work"]:
        say(f"{row['at_work']} are at work: each stops before its next step")
    return ExitCode.OK


async def _resume(asked: argparse.Namespace, store: SettingsStore) -> ExitCode:
    if not await store.resume(asked.organization):
        raise _unknown(asked.organization)
    row = await one(store, asked.organization)
    write_record(settings_row(row), asked.output)
    await tell_what_stops(store, row)
    return ExitCode.OK


def _unknown(organization: str) -> CommandFailed:
    return CommandFailed(ExitCode.NOT_FOUND, f"{organization} has no settings, so nothing of it runs anyway")
