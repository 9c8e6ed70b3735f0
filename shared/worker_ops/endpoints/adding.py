"""`intelliflow endpoints add`: an endpoint with a secret of its own, which is shown this once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from notifications_worker.channels.webhook_endpoints import header_problem
from notifications_worker.channels.webhook_signature import AsymmetricKey, new_secret, read_key
from worker_ops.arguments import rate
from worker_ops.endpoints.opened import run_with_table, whole
from worker_ops.endpoints.store import BadEndpoint, NewEndpoint
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_record
from worker_runtime.egress import EgressRefused
from worker_runtime.egress.addresses import AddressRules, read_url

if TYPE_CHECKING:
    from notifications_worker.settings import NotificationsSettings
    from worker_ops.arguments import Commands
    from worker_ops.endpoints.store import EndpointTable, Row

FINAL_STATUSES = range(400, 600)


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("add", help="add an endpoint and show its new secret")
    parser.add_argument("url", metavar="URL", help="https://host/path")
    parser.add_argument("--tenant", metavar="TENANT", required=True, help="whose it is")
    parser.add_argument(
        "--events", metavar="TYPE", nargs="+", default=["*"], help="lead.created, lead.* (default: all)"
    )
    parser.add_argument("--ordered", action="store_true", help="one after another, in order")
    parser.add_argument("--rate", metavar="N/s", type=rate, help="at most so many a second")
    parser.add_argument(
        "--permanent", metavar="STATUS", nargs="+", type=status, default=[], help="answers that are final"
    )
    parser.add_argument(
        "--header", metavar="NAME:VALUE", type=header, action="append", default=[], help="to send along"
    )
    add_asymmetric(parser)
    add_output(parser)
    run_with_table(parser, _add)


def add_asymmetric(parser: argparse.ArgumentParser) -> None:
    """Let the new key be one whose receiver cannot sign."""
    parser.add_argument("--asymmetric", action="store_true", help="sign by ed25519: the receiver gets a public key")


def status(text: str) -> int:
    """Read an HTTP status that says no."""
    if not text.isdecimal() or int(text) not in FINAL_STATUSES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a status from 400 to 599")
    return int(text)


def header(text: str) -> tuple[str, str]:
    """Read `NAME:VALUE`, of which the workers send any but the protocol's own."""
    name, _, value = text.partition(":")
    if problem := header_problem(name.strip(), value.strip()):
        raise argparse.ArgumentTypeError(problem)
    return name.strip(), value.strip()


async def _add(asked: argparse.Namespace, table: EndpointTable, settings: NotificationsSettings) -> ExitCode:
    _refuse_unreachable(asked.url, settings)
    secret = new_secret(asymmetric=asked.asymmetric)
    row = await _added(asked, table, secret)
    if row is None:
        raise CommandFailed(ExitCode.FAILED, f"tenant {asked.tenant} has that URL already; see `endpoints list`")
    write_record(whole(row, reveal=True) | shown_once(secret), asked.output)
    say("the secret is shown this once: hand it to the receiver")
    return ExitCode.OK


def _refuse_unreachable(url: str, settings: NotificationsSettings) -> None:
    try:
        AddressRules.of(settings.egress_allowed_cidrs).refuse_literal(read_url(url))
    except EgressRefused as error:
        raise CommandFailed(ExitCode.REFUSED, f"no worker would send there: {error}") from error


async def _added(asked: argparse.Namespace, table: EndpointTable, secret: str) -> Row | None:
    new = NewEndpoint(
        asked.tenant,
        asked.url,
        asked.events,
        secret,
        asked.ordered,
        asked.rate,
        asked.permanent,
        dict(asked.header),
    )
    try:
        return await table.add(new)
    except BadEndpoint as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from error


def shown_once(secret: str) -> Row:
    """What the receiver is to be given."""
    key = read_key(secret)
    return {"publicKey": key.public} if isinstance(key, AsymmetricKey) else {"secret": secret}
