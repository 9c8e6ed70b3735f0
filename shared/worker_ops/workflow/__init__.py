"""`intelliflow workflow`: what runs for an organisation, why something does not, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.workflow import (
    cancelling,
    dead,
    listing,
    pausing,
    purging,
    reopening,
    rules,
    settings,
    show,
    signalling,
    starting,
)

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

VERBS = (settings, rules, starting, signalling, listing, show, reopening, cancelling, pausing, purging, dead)


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser("workflow", help="look after workflows and their executions")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        verb.register(verbs)
