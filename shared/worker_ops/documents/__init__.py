"""`intelliflow documents`: what was read, and what is in it. Each verb has a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.documents import searching

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser("documents", help="look into the documents that were read")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in (searching,):
        verb.register(verbs)
