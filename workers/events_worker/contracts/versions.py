"""The version of a payload: `major.minor`, where a minor version only adds optional fields."""

from __future__ import annotations

import re
from typing import NamedTuple

# The patch number of a `1.0.0` says nothing about a payload; SQL of ours uses the same pattern.
WRITTEN = r"v?([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:\.[0-9]{1,6})?"


class Version(NamedTuple):
    """Ordered as versions are: 1.9 is older than 1.10."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def parsed(written: str) -> Version | None:
    """Read `1.0`, or `1`, `1.0.0` and `v1` as other people write it; `None` when it is no version."""
    found = re.fullmatch(WRITTEN, written)
    return Version(int(found[1]), int(found[2] or 0)) if found else None


def written(text: str) -> Version:
    """Read a version of the catalogue, where its form has been checked."""
    major, minor = text.split(".")
    return Version(int(major), int(minor))
