"""`intelliflow suppressions`: the addresses that nothing is sent to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from notifications_worker.notification import bare_address
from notifications_worker.store import SuppressionStore
from notifications_worker.suppression import LISTS, RedisSuppressions, Suppressions, fingerprint
from worker_ops.arguments import add_author, positive
from worker_ops.deliveries.selecting import said, shown
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, at, say, write_rows
from worker_ops.servers import opened_database, opened_redis
from worker_ops.suppressions.store import SuppressionView
from worker_runtime.delivery_state import SuppressedAddresses

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from worker_ops.arguments import Commands
    from worker_ops.output import Row
    from worker_runtime.settings import WorkerSettings

SHOWN = 100
BY_HAND = "BY_HAND"


@dataclass(frozen=True)
class Known:
    """Where suppressed addresses are: in PostgreSQL, or as fingerprints in Redis where there is no `view`."""

    addresses: Suppressions
    in_redis: SuppressedAddresses | None
    view: SuppressionView | None


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser = commands.add_parser("suppressions", help="look after the addresses that nothing is sent to")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list suppressed addresses, the latest first")
    listing.add_argument("--tenant", metavar="TENANT", help="of this tenant")
    listing.add_argument("--channel", choices=LISTS, help="of this channel")
    listing.add_argument("--address", metavar="ADDRESS", help="this one")
    listing.add_argument("--limit", type=positive, default=SHOWN, help="at most so many (default: %(default)s)")
    listing.add_argument("--reveal", action="store_true", help="show addresses instead of masking them")
    add_output(listing)
    listing.set_defaults(command=_run_with(_list))
    for name, verb, what in (("add", _add, "send nothing to an address"), ("remove", _remove, "send to one again")):
        changing = verbs.add_parser(name, help=what)
        changing.add_argument("address", metavar="ADDRESS")
        changing.add_argument("--tenant", metavar="TENANT", required=True, help="for this tenant")
        changing.add_argument("--channel", choices=LISTS, required=True, help="over this channel")
        add_author(changing, reason_needed=False)
        add_output(changing)
        changing.set_defaults(command=_run_with(verb))


def _run_with(
    verb: Callable[[argparse.Namespace, Known], Awaitable[ExitCode]],
) -> Callable[[argparse.Namespace, WorkerSettings], ExitCode]:
    async def run(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
        async with _opened(settings) as known:
            return await verb(asked, known)

    return lambda asked, settings: asyncio.run(run(asked, settings))


@asynccontextmanager
async def _opened(settings: WorkerSettings) -> AsyncIterator[Known]:
    if settings.database_url is None:
        async with opened_redis(settings) as redis:
            addresses = SuppressedAddresses(redis, settings.queue_prefix)
            yield Known(RedisSuppressions(addresses), addresses, None)
        return
    async with opened_database(settings) as database:
        yield Known(SuppressionStore(database, database), None, SuppressionView(database))


async def _list(asked: argparse.Namespace, known: Known) -> ExitCode:
    wanted = fingerprint(_as_sent(asked.address, asked.channel)) if asked.address else None
    if known.view:
        rows = await known.view.newest(asked.tenant, asked.channel, wanted, asked.limit)
        found = [
            _row(row["tenant_id"], row["channel"], row["fingerprint"], said(row["reason"], reveal=asked.reveal))
            | {"address": shown(row["address"], reveal=asked.reveal), "since": at(row["created_at"])}
            for row in rows
        ]
    else:
        say("DATABASE_URL is not set: Redis keeps fingerprints, not addresses")
        found = await _in_redis(asked, known, wanted)
    write_rows(found, asked.output)
    return ExitCode.OK


async def _in_redis(asked: argparse.Namespace, known: Known, wanted: str | None) -> list[Row]:
    assert known.in_redis  # noqa: S101  see `Known`
    found: list[Row] = []
    count = 0
    async for tenant, channel, print_, reason in known.in_redis.known():
        if asked.tenant not in (None, tenant) or asked.channel not in (None, channel) or wanted not in (None, print_):
            continue
        count += 1
        if len(found) < asked.limit:
            found.append(_row(tenant, channel, print_, reason))
    if count > len(found):
        say(f"and {count - len(found)} more: --limit shows them")
    return found


def _row(tenant: str, channel: str, print_: str, reason: str | None) -> Row:
    return {"tenantId": tenant, "channel": channel, "reason": reason, "fingerprint": print_}


async def _add(asked: argparse.Namespace, known: Known) -> ExitCode:
    address, reason = _as_sent(asked.address, asked.channel), asked.reason or BY_HAND
    before = await known.addresses.reason(asked.tenant, asked.channel, address)
    if before is not None:
        return _tell(asked, "already suppressed", before)
    _refuse_unless_applied(asked, "suppress it")
    await known.addresses.add(asked.tenant, asked.channel, address, reason)
    await _record(asked, known, "suppress", address)
    return _tell(asked, "suppressed", reason)


async def _remove(asked: argparse.Namespace, known: Known) -> ExitCode:
    address = _as_sent(asked.address, asked.channel)
    before = await known.addresses.reason(asked.tenant, asked.channel, address)
    if before is None:
        raise CommandFailed(ExitCode.NOT_FOUND, "this address is not suppressed for that tenant and channel")
    _refuse_unless_applied(asked, f"send to it again, which is suppressed because of {before}")
    await known.addresses.remove(asked.tenant, asked.channel, address)
    await _record(asked, known, "unsuppress", address)
    return _tell(asked, "removed", before)


def _refuse_unless_applied(asked: argparse.Namespace, what: str) -> None:
    if not asked.apply:
        raise CommandFailed(ExitCode.REFUSED, f"this would {what}; do it with --apply")


def _as_sent(address: str, channel: str | None) -> str:
    """Return an address as the worker has it when it asks for it."""
    if "@" not in address or not (channel or "EMAIL").startswith("EMAIL"):
        return address.strip()
    try:
        return bare_address(address.strip())
    except ValueError as error:
        raise CommandFailed(ExitCode.USAGE, f"{address!r} is not one bare e-mail address") from error


async def _record(asked: argparse.Namespace, known: Known, verb: str, address: str) -> None:
    if known.view:
        print_ = fingerprint(address)
        await known.view.record(verb, asked.tenant, asked.channel, print_, asked.by, asked.reason)


def _tell(asked: argparse.Namespace, outcome: str, reason: str) -> ExitCode:
    address = shown(asked.address, reveal=False)
    row = {"tenantId": asked.tenant, "channel": asked.channel, "address": address, "outcome": outcome, "reason": reason}
    write_rows([row], asked.output)
    return ExitCode.OK
