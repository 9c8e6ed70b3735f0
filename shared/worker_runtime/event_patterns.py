"""Which events somebody wants: a type (`lead.created`), a family (`lead.*`) or everything (`*`)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

__all__ = ["EventPattern", "matches"]

PATTERN = re.compile(r"\*|[^\s*]+\.\*|[^\s*]+")


def _checked(written: str) -> str:
    if not PATTERN.fullmatch(written):
        raise ValueError("is neither a type (lead.created) nor a family (lead.*) nor *")
    return written


# For the fields of models.
EventPattern = Annotated[str, AfterValidator(_checked)]


def matches(pattern: str, event_type: str) -> bool:
    """Tell whether who asked for `lead.created`, `lead.*` or `*` wants this event type."""
    if pattern.endswith("*"):
        return event_type.startswith(pattern.removesuffix("*"))
    return event_type == pattern
