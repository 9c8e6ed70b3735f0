"""`intelliflow documents`: what has been read, why something was not, and looking into it. Each verb has a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.documents import delete, listing, searching, show

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser("documents", help="look after documents and search them")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in (listing, show, searching, delete):
        verb.register(verbs)
