"""`intelliflow workflow rules save`: a definition that is right becomes a rule's current version."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_ops.arguments import Commands


def register(rules: Commands) -> None:
    """Add the verb."""
