"""`intelliflow outbox`: the events that are to come, under way, dead and done. Each verb has a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.outbox import backlog, dead, discard, dry_run, lag, partitions, replay, retry, show

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

VERBS = (lag, backlog, dead, show, retry, discard, replay, partitions, dry_run)


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser("outbox", help="look after the events of the outbox")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        verb.register(verbs)
