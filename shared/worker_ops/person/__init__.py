"""`intelliflow person`: where an address is, and away with it."""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from worker_ops.arguments import add_author
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.opened import opened_jobs
from worker_ops.output import add_output, say, write_rows
from worker_ops.person.address import Person, email_spellings, phone_number
from worker_ops.person.jobs import SCHEDULE, PersonJobs
from worker_ops.person.searching import Searching
from worker_ops.person.store import PersonStore, Search
from worker_ops.person.tally import erasure_rows
from worker_ops.servers import interruptible, opened_database, opened_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from worker_ops.arguments import Commands
    from worker_ops.person.tally import Tally
    from worker_runtime.settings import WorkerSettings

    Verb = Callable[[argparse.Namespace, Searching, Search], Awaitable[ExitCode]]


T = TypeVar("T")
# For one stretch of a table: what takes longer is done in smaller ones.
STRETCH_SECONDS = 20.0


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser = commands.add_parser("person", help="find or erase everything that holds somebody's address")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    find = verbs.add_parser("find", help="say where an address is")
    _add_addresses(find)
    find.set_defaults(command=_run_with(_find))
    erase = verbs.add_parser("erase", help="erase an address from the databases and the queues")
    _add_addresses(erase)
    add_author(erase, reason_needed=False)
    erase.set_defaults(command=_run_with(_erase))


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--email", action="append", default=[], type=_email, metavar="ADDRESS", help="may be repeated")
    parser.add_argument("--phone", action="append", default=[], type=_phone, metavar="NUMBER", help="may be repeated")
    parser.add_argument("--tenant", metavar="TENANT", help="only what is this tenant's")
    add_output(parser)


def _email(text: str) -> str:
    _read(email_spellings, text)
    return text.strip()


def _phone(text: str) -> str:
    return _read(phone_number, text)


def _read(read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run_with(verb: Verb) -> Callable[[argparse.Namespace, WorkerSettings], ExitCode]:
    async def run(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
        person = Person(tuple(asked.email), tuple(asked.phone))
        if not (person.emails or person.phones):
            raise CommandFailed(ExitCode.USAGE, "say who: --email ADDRESS, --phone NUMBER, or several of them")
        async with _opened(settings) as searching:
            return await verb(asked, searching, Search(person, asked.tenant))

    return lambda asked, settings: asyncio.run(run(asked, settings))


@asynccontextmanager
async def _opened(settings: WorkerSettings) -> AsyncIterator[Searching]:
    async with AsyncExitStack() as opened:
        store = None
        if settings.database_url is None:
            say("DATABASE_URL is not set: only Redis is looked at, and the jobs database if that is set")
        else:
            store = PersonStore(await opened.enter_async_context(opened_database(settings, STRETCH_SECONDS)))
        side_effects = None
        if settings.job_queue_database_url is None:
            say("JOB_QUEUE_DATABASE_URL is not set: the jobs database is not looked at")
        else:
            side_effects = PersonStore(await opened.enter_async_context(opened_jobs(settings, STRETCH_SECONDS)))
        redis = await opened.enter_async_context(opened_redis(settings))
        yield Searching(PersonJobs(redis, settings), store, side_effects, opened.enter_context(interruptible()))


async def _find(asked: argparse.Namespace, searching: Searching, search: Search) -> ExitCode:
    found = await searching.find(search)
    write_rows(found.rows(asked.output), asked.output)
    await _tell_suppressed(searching, search)
    return _unless_stopped(searching, ExitCode.OK)


async def _erase(asked: argparse.Namespace, searching: Searching, search: Search) -> ExitCode:
    if not asked.apply:
        found = await searching.find(search)
        write_rows(found.rows(asked.output), asked.output)
        _unless_stopped(searching, ExitCode.OK)
        raise CommandFailed(ExitCode.REFUSED, f"this would erase {found.idle} of these; do it with --apply")
    if searching.store:
        await searching.store.record(search, asked.by, asked.reason)
    erased = await searching.erase(search)
    left: Tally | None = await searching.find(replace(search, at_work=()))
    if searching.stop.requested.is_set():
        # Nobody has looked at all of it.
        left = None
    _tell_audit(asked, search, erased, left)
    write_rows(erasure_rows(erased, left), asked.output)
    if left and left.total:
        _tell_what_helps(left)
    await _tell_suppressed(searching, search)
    return _unless_stopped(searching, ExitCode.PARTIAL if left and left.total else ExitCode.OK)


def _tell_what_helps(left: Tally) -> None:
    schedules = [place for place in left.places if place.endswith(f" {SCHEDULE}")]
    for place in schedules:
        say(f"{place}: makes jobs for this person again and again: remove the schedule, then run this again")
    if len(left.places) > len(schedules):
        say("somebody works on what is left, or it is still to be done: run it again when that is over")


def _unless_stopped(searching: Searching, code: ExitCode) -> ExitCode:
    if searching.stop.requested.is_set():
        say("stopped; the same command begins again, and finds what is left")
        return ExitCode.PARTIAL
    return code


def _tell_audit(asked: argparse.Namespace, search: Search, erased: Tally, left: Tally | None) -> None:
    line = {
        "event": "person_erased",
        "fingerprints": search.person.fingerprints,
        "tenant": search.tenant,
        "by": asked.by,
        "reason": search.person.erased(asked.reason),
        "erased": erased.total,
        "left": left.total if left else None,
    }
    say(json.dumps(line))


async def _tell_suppressed(searching: Searching, search: Search) -> None:
    if searching.store and (entries := await searching.store.suppressed(search)):
        say(f"nothing is sent to this person, by {entries} entries that hold a fingerprint; they stay")
