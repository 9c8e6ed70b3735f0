"""`intelliflow endpoints`: where tenants get their webhooks, by which keys, and whether they still do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.endpoints import adding, listing, rotating, switching

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

VERBS = (listing, adding, rotating, switching)


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "endpoints", help="look after the webhook endpoints of tenants"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        verb.register(verbs)
