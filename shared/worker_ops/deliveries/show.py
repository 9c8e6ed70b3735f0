"""`intelliflow deliveries show`: everything that is known of one delivery, with every attempt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worker_ops.deliveries.selecting import delivery_row, said
from worker_ops.deliveries.store import DeliveriesStore, Selection, key_of
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, at, write_record
from worker_ops.servers import command_over
from worker_runtime.settings.queues import ADDRESSEES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from worker_ops.arguments import Commands

SEVERAL = 20


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("show", help="show a delivery, every attempt, and what was done to it")
    parser.add_argument("notification_id", metavar="NOTIFICATION_ID")
    parser.add_argument("--tenant", metavar="TENANT", help="of this tenant")
    parser.add_argument("--channel", choices=[*ADDRESSEES], help="over this channel")
    parser.add_argument("--reveal", action="store_true", help="show the recipient, and what was sent if it is kept")
    add_output(parser)
    parser.set_defaults(command=command_over(DeliveriesStore, _show))


async def _show(asked: argparse.Namespace, store: DeliveriesStore) -> ExitCode:
    chosen = Selection([asked.notification_id], tenant=asked.tenant, channel=asked.channel)
    found = await store.newest(chosen, SEVERAL)
    if not found:
        raise CommandFailed(ExitCode.NOT_FOUND, f"nothing is known of a notification {asked.notification_id}")
    refuse_several(found)
    key = key_of(found[0])
    record = _record(found[0], reveal=asked.reveal) | {
        "attemptsMade": [_attempt(row, reveal=asked.reveal) for row in await store.attempts(key)],
        "history": [_edit(row) for row in await store.edits(key)],
    }
    if asked.reveal and found[0]["payload"]:
        record["payload"] = json.loads(found[0]["payload"])
    write_record(record, asked.output)
    return ExitCode.OK


def refuse_several(found: Sequence[Any]) -> None:
    """Make sure that each notification id names one delivery."""
    ids = [row["notification_id"] for row in found]
    for row in found:
        if ids.count(row["notification_id"]) > 1:
            places = ", ".join(f"{other['tenant_id']} {other['channel']}" for other in found)
            raise CommandFailed(
                ExitCode.USAGE, f"{row['notification_id']} is there for {places}: name --tenant and --channel"
            )


def _record(row: Any, *, reveal: bool) -> dict[str, Any]:
    name = row["provider_message_id"]
    return delivery_row(row, reveal=reveal) | {
        # Without its domain: what looks like an address is masked.
        "providerMessageId": name if reveal or name is None else name.strip("<>").partition("@")[0],
        "eventId": row["event_id"],
        "job": row["job"],
        "created": at(row["created_at"]),
        "accepted": at(row["accepted_at"]),
        "doubtfulSince": at(row["doubtful_since"]),
        "sendingUntil": at(row["lease_until"]),
        "payloadKept": row["payload"] is not None,
    }


def _attempt(row: Any, *, reveal: bool) -> dict[str, Any]:
    return {
        "at": at(row["started_at"]),
        "attempt": row["attempt"],
        "provider": row["provider"],
        "outcome": row["outcome"],
        "code": row["code"],
        "reason": said(row["reason"], reveal=reveal),
        "milliseconds": row["milliseconds"],
        "status": row["status"],
        "statusCode": row["status_code"],
        "said": said(row["said"], reveal=reveal),
        "remote": row["remote"],
        "signedBy": list(row["signed_by"]),
    }


def _edit(row: Any) -> dict[str, Any]:
    return {
        "at": at(row["edited_at"]),
        "verb": row["verb"],
        "by": row["edited_by"],
        "reason": row["reason"],
        "stateBefore": row["state_before"],
    }
