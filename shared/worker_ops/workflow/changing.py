"""How the verbs that change many executions go about it: they show, then change page after page, and count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import say, write_rows
from worker_ops.servers import interruptible
from worker_ops.workflow.changing_store import ChangingStore
from worker_ops.workflow.executions_store import CHUNK, ExecutionsStore
from worker_ops.workflow.selecting import group_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from worker_ops.workflow.executions_store import Selection
    from worker_runtime.loops import StopSignal
    from worker_runtime.postgres import Database


@dataclass(frozen=True)
class Stores:
    """What these verbs look into, and by what they change it."""

    database: Database

    @property
    def executions(self) -> ExecutionsStore:
        """To find them."""
        return ExecutionsStore(self.database)

    @property
    def changes(self) -> ChangingStore:
        """To change them."""
        return ChangingStore(self.database)


# Changes some executions, at most `CHUNK`, and says of each what became of it; those left out were not as expected.
Change: TypeAlias = "Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, str]]]"


def refuse_everything(asked: argparse.Namespace) -> None:
    """Change nothing when nothing was said about what."""
    described = any((asked.org, asked.rule, asked.error, asked.since))
    if asked.execution_ids and (described or asked.status):
        raise CommandFailed(ExitCode.USAGE, "name executions or describe them, not both")
    if len(asked.execution_ids) > CHUNK:
        raise CommandFailed(ExitCode.USAGE, f"name at most {CHUNK} executions, or describe them")
    if not (asked.execution_ids or described):
        raise CommandFailed(ExitCode.USAGE, "say which: EXECUTION_ID..., --org, --rule, --error or --since")


async def change_named(
    asked: argparse.Namespace, stores: Stores, expected: Sequence[str], change: Change, verb: str
) -> ExitCode:
    """Change those that were named and are in an expected status; say of each what became of it."""
    names = list(dict.fromkeys(asked.execution_ids))
    standing = await stores.executions.standing(names)
    if not standing:
        raise CommandFailed(ExitCode.NOT_FOUND, "nothing is known of these executions")
    fit = [name for name in names if standing.get(name) in expected]
    if not asked.apply:
        write_rows([{"executionId": name, "status": standing.get(name, "unknown")} for name in names], asked.output)
        if not fit:
            raise CommandFailed(ExitCode.NOT_FOUND, f"none of these executions is {' or '.join(expected)}")
        raise CommandFailed(ExitCode.REFUSED, f"this would {verb} {len(fit)} executions; do it with --apply")
    outcomes = {str(name): outcome for name, outcome in (await change([UUID(name) for name in fit])).items()}
    rows = [{"executionId": name, "outcome": outcomes.get(name, _left(standing.get(name)))} for name in names]
    write_rows(rows, asked.output)
    if len(outcomes.keys() & set(names)) == len(names):
        return ExitCode.OK
    return ExitCode.PARTIAL if outcomes else ExitCode.NOT_FOUND


def _left(status: str | None) -> str:
    return "unknown" if status is None else f"left as it was: {status}"


async def change_described(
    asked: argparse.Namespace, stores: Stores, selection: Selection, change: Change, verb: str
) -> ExitCode:
    """Show what is described and, told to, change all of it that was there when this began."""
    selection = replace(selection, created_before=await stores.executions.now())
    groups = await stores.executions.groups(selection)
    matched = sum(row["count"] for row in groups)
    if matched and not asked.apply:
        write_rows([group_row(row) for row in groups], asked.output)
        raise CommandFailed(ExitCode.REFUSED, f"this would {verb} {matched} executions; do it with --apply")
    with interruptible() as stop:
        outcomes = await change_all(stores, selection, change, matched, stop)
        write_rows([{"matched": matched, **outcomes}], asked.output)
        if stop.requested.is_set():
            say("stopped; the same command goes on where it stopped")
            return ExitCode.PARTIAL
    return ExitCode.OK


async def change_all(
    stores: Stores, selection: Selection, change: Change, matched: int, stop: StopSignal
) -> Mapping[str, int]:
    """Change page after page until a stop is requested; count what became of them, children included."""
    outcomes: Counter[str] = Counter()
    for organization in await _organizations(stores, selection):
        async for page in stores.executions.pages(replace(selection, organization=organization)):
            if stop.requested.is_set():
                return outcomes
            outcomes.update((await change(page)).values())
            say(f"{outcomes.total()} of {matched}")
    return outcomes


async def _organizations(stores: Stores, selection: Selection) -> Sequence[str]:
    return await stores.executions.organizations() if selection.organization is None else [selection.organization]
