"""`intelliflow jobs`: the queue of side effects, what is in it and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.jobs import cancelling, counting, listing, migrating, purging, retrying, retrying_all, show, workers

if TYPE_CHECKING:
    from worker_ops.arguments import Commands

VERBS = (counting, workers, listing, show, retrying, retrying_all, cancelling, purging, migrating)


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser = commands.add_parser("jobs", help="look after the side effects in the jobs database")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        verb.register(verbs)
