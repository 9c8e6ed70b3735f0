"""`intelliflow workflow rules`: what organisations have defined, in which version, and whether it may be started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.arguments import positive
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, at, say, write_record, write_rows
from worker_ops.servers import command_over
from worker_ops.workflow import saving
from worker_ops.workflow.given_json import stored_json
from worker_ops.workflow.rules_store import RulesStore

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verb and its own."""
    of_rules = verbs.add_parser("rules", help="save, show and switch the workflows that organisations have defined")
    rules = of_rules.add_subparsers(required=True, metavar="VERB")
    saving.register(rules)
    listing = rules.add_parser("list", help="list rules")
    listing.add_argument("--org", metavar="ORG", help="of this organisation")
    add_output(listing)
    listing.set_defaults(command=command_over(RulesStore, _list))
    showing = rules.add_parser("show", help="show a rule, its versions and its definition")
    _add_rule(showing)
    showing.add_argument("--version", type=positive, help="this one's definition (default: the current one's)")
    showing.set_defaults(command=command_over(RulesStore, _show))
    for name, active, meaning in (
        ("activate", True, "let a rule be started"),
        ("deactivate", False, "let a rule not be started any more; its executions go on"),
    ):
        switch = rules.add_parser(name, help=meaning)
        _add_rule(switch)
        switch.set_defaults(command=command_over(RulesStore, _switch), active=active)


def _add_rule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--org", metavar="ORG", required=True, help="of this organisation")
    add_output(parser)


async def _list(asked: argparse.Namespace, store: RulesStore) -> ExitCode:
    write_rows([_row(row) for row in await store.some(asked.org)], asked.output)
    return ExitCode.OK


async def _show(asked: argparse.Namespace, store: RulesStore) -> ExitCode:
    found = await store.some(asked.org, asked.name, asked.version)
    if not found:
        which = f" in version {asked.version}" if asked.version else ""
        raise CommandFailed(ExitCode.NOT_FOUND, f"{asked.org} has no rule {asked.name}{which}")
    row = found[0]
    versions = [
        {"version": version["version"], "saved": at(version["created_at"])}
        for version in await store.versions(row["id"])
    ]
    write_record(_row(row) | {"versions": versions, "definition": stored_json(row["definition"])}, asked.output)
    return ExitCode.OK


async def _switch(asked: argparse.Namespace, store: RulesStore) -> ExitCode:
    if not await store.switch(asked.org, asked.name, active=asked.active):
        raise CommandFailed(ExitCode.NOT_FOUND, f"{asked.org} has no rule {asked.name}")
    (row,) = await store.some(asked.org, asked.name)
    write_record(_row(row), asked.output)
    if not asked.active:
        say("nothing starts it any more, nor do its events; what has been started goes on")
    return ExitCode.OK


def _row(row: Any) -> dict[str, Any]:
    return {
        "organizationId": row["organization_id"],
        "name": row["name"],
        "active": row["active"],
        "version": row["current_version"],
        "trigger": row["trigger_event"],
        "ruleId": str(row["id"]),
        "created": at(row["created_at"]),
        "changed": at(row["changed_at"]),
    }
