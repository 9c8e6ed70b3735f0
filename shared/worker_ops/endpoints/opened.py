"""What every verb of `intelliflow endpoints` works with, and how it shows an endpoint."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit
from uuid import UUID

from notifications_worker.channels.webhook_signature import SecretUnusable, read_key
from notifications_worker.settings import NotificationsSettings
from worker_ops.endpoints.store import EndpointTable
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.servers import opened_database
from worker_runtime.health_board import timestamp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from worker_ops.endpoints.store import Row


def endpoint_id(text: str) -> str:
    """Read the id of an endpoint."""
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an endpoint's id (a UUID)") from None


def run_with_table(
    parser: argparse.ArgumentParser,
    verb: Callable[[argparse.Namespace, EndpointTable, NotificationsSettings], Awaitable[ExitCode]],
) -> None:
    """Make a command of a verb."""

    async def run(asked: argparse.Namespace, settings: NotificationsSettings) -> ExitCode:
        async with opened_database(settings) as database:
            return await verb(asked, EndpointTable(database), settings)

    parser.set_defaults(
        command=lambda asked, settings: asyncio.run(run(asked, settings)), settings_type=NotificationsSettings
    )


async def found(table: EndpointTable, asked: argparse.Namespace) -> Row:
    """Return the endpoint that was named; raises CommandFailed."""
    row = await table.one(asked.endpoint_id)
    if row is None:
        raise CommandFailed(ExitCode.NOT_FOUND, f"no endpoint {asked.endpoint_id}")
    return row


def brief(row: Row) -> Row:
    """Write an endpoint as a row of a table: of its URL the host, for the rest may be a secret."""
    parts = urlsplit(row["url"])
    return {
        "id": row["id"],
        "tenantId": row["tenant_id"],
        "host": parts.netloc.rpartition("@")[2],
        "events": ",".join(row["event_patterns"]),
        "state": "active" if row["active"] else "disabled",
        "because": row["disabled_because"],
        "failingSince": moment(row["failing_since"]),
        "ordered": row["ordered"],
        "perSecond": row["rate_per_second"],
        "key": key_id(row["secret"]),
        "previousKeyUntil": moment(row["previous_secret_until"]),
    }


def whole(row: Row, *, reveal: bool) -> Row:
    """Write an endpoint as a record; with `reveal`, its URL and headers too."""
    headers = json.loads(row["headers"])
    secrets = {"url": row["url"], "headers": headers} if reveal else {"headers": dict.fromkeys(headers, "***")}
    return brief(row) | {
        "permanentStatuses": list(row["permanent_statuses"]),
        "previousKey": key_id(row["previous_secret"]),
        "disabledAt": moment(row["disabled_at"]),
        "createdAt": moment(row["created_at"]),
        **secrets,
    }


def key_id(secret: str | None) -> str | None:
    """Name a key as the attempts log does; `None` is the operator's WEBHOOK_SIGNING_SECRET."""
    try:
        return read_key(secret).id if secret else None
    except SecretUnusable as error:
        return f"unusable: {error}"


def moment(at: datetime | None) -> str | None:
    """Write a time as ISO-8601 in UTC."""
    return timestamp(at.timestamp()) if at else None


def not_applied(what: str) -> NoReturn:
    """Raise CommandFailed: the plan was shown, and nothing done."""
    raise CommandFailed(ExitCode.REFUSED, f"this would {what}; do it with --apply")
