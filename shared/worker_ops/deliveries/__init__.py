"""`intelliflow deliveries`: what became of every notification. Each verb has a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.deliveries import listing, replay, show

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser("deliveries", help="look after what became of notifications")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in (listing, show, replay):
        verb.register(verbs)
