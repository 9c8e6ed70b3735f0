"""`intelliflow workflow signal`: the event that executions wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, say, write_record
from worker_ops.servers import command_over
from worker_ops.workflow.given_json import given_json
from worker_ops.workflow.starting_store import StartingStore

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("signal", help="tell executions of the event that they wait for, or will wait for")
    parser.add_argument("organization", metavar="ORG")
    parser.add_argument("event", metavar="EVENT", help="its name, like invoice.paid")
    parser.add_argument("correlation", metavar="CORRELATION", help="which one, as the waiting step says")
    parser.add_argument("--data", metavar="JSON|@FILE", type=given_json, default="null", help="what it says")
    parser.add_argument("--key", metavar="K", help="the same key is the same event")
    add_output(parser)
    parser.set_defaults(command=command_over(StartingStore, _signal))


async def _signal(asked: argparse.Namespace, store: StartingStore) -> ExitCode:
    waited = await store.signal(asked.organization, asked.event, asked.correlation, asked.data, asked.key)
    write_record({"waited": waited}, asked.output)
    if not waited:
        say("nobody waited, or the key was used before; it is kept for executions that are under way and will wait")
    return ExitCode.OK
