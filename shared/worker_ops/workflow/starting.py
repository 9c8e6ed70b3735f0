"""`intelliflow workflow start`: an execution of a rule, or of a workflow in Python."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_record
from worker_ops.servers import command_over
from worker_ops.workflow.given_json import given_json, stored_json
from worker_ops.workflow.settings import tell_what_stops
from worker_ops.workflow.starting_store import StartingStore, UnknownWorkflow
from workflow_worker.definition import DefinitionError, read_definition

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("start", help="start a workflow of an organisation")
    parser.add_argument("organization", metavar="ORG")
    parser.add_argument("name", metavar="NAME", help="of a rule, or of a workflow in Python")
    parser.add_argument("--input", metavar="JSON|@FILE", type=given_json, default="{}", help="its input (default: {})")
    parser.add_argument("--key", metavar="K", help="the same key starts it once")
    add_output(parser)
    parser.set_defaults(command=command_over(StartingStore, _start))


async def _start(asked: argparse.Namespace, store: StartingStore) -> ExitCode:
    await _refuse_wrong_input(asked, store)
    try:
        execution, new = await store.start(asked.organization, asked.name, asked.input, asked.key)
    except UnknownWorkflow as unknown:
        hint = "`intelliflow workflow rules list` shows them; one in Python is known once a worker has had it"
        raise CommandFailed(ExitCode.NOT_FOUND, f"{unknown}: {hint}") from unknown
    write_record({"executionId": execution, "started": new}, asked.output)
    if not new:
        say("it was started before, with this key")
    settings = await store.settings.some(asked.organization)
    await tell_what_stops(store.settings, settings[0] if settings else None)
    return ExitCode.OK


async def _refuse_wrong_input(asked: argparse.Namespace, store: StartingStore) -> None:
    """Say now what the execution would fail of at once."""
    for rule in await store.rules.some(asked.organization, asked.name):
        try:
            problem = read_definition(stored_json(rule["definition"])).input_problem(json.loads(asked.input))
        except DefinitionError as error:
            raise CommandFailed(ExitCode.FAILED, *str(error).splitlines()) from error
        if problem:
            raise CommandFailed(ExitCode.FAILED, problem)
