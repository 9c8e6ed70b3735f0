"""`intelliflow workflow rules save`: a definition that is right becomes a rule's current version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_record
from worker_ops.servers import command_over
from worker_ops.workflow.rules_store import RulesStore
from worker_runtime.postgres import storable_json
from worker_runtime.yaml_source import SourceError
from workflow_worker.definition import load_definition

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from workflow_worker.definition import Definition

STANDARD_INPUT = Path("/dev/stdin")


def register(rules: Commands) -> None:
    """Add the verb."""
    parser = rules.add_parser("save", help="check a definition and make it the current version of its rule")
    parser.add_argument("file", metavar="FILE", type=_file, help="in YAML or JSON, which is YAML; - is standard input")
    parser.add_argument("--org", metavar="ORG", required=True, help="for this organisation")
    add_output(parser)
    parser.set_defaults(command=command_over(RulesStore, _save))


def _file(text: str) -> Path:
    return STANDARD_INPUT if text == "-" else Path(text)


async def _save(asked: argparse.Namespace, store: RulesStore) -> ExitCode:
    definition, written = _read(asked.file)
    trigger = definition.trigger.pattern if definition.trigger else None
    saved = await store.save(asked.org, definition.name, trigger, written)
    record = {"organizationId": asked.org, "name": definition.name, "version": saved.version, "new": saved.new}
    write_record(record | {"active": saved.active, "trigger": trigger}, asked.output)
    say("saved; executions that have begun stay with their version" if saved.new else "nothing has changed")
    if not saved.active:
        say(f"nothing starts it: `intelliflow workflow rules activate {definition.name} --org {asked.org}`")
    if definition.workflow and not await store.is_announced(definition.workflow):
        say(f"no worker has had {definition.workflow} yet: its executions wait for one")
    return ExitCode.OK


def _read(path: Path) -> tuple[Definition, str]:
    """Return a definition and its JSON; raises `CommandFailed` with every mistake and its line."""
    try:
        document, definition = load_definition(path)
    except SourceError as error:
        raise CommandFailed(ExitCode.FAILED, *str(error).splitlines()) from error
    return definition, json.dumps(storable_json(document))
