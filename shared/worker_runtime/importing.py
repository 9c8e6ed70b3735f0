"""What a team's own package did wrong when it was imported, told with its line."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path

__all__ = ["account_of"]


def account_of(error: BaseException, name: str, *, ours: type[Exception]) -> str:
    """Say what went wrong while the module `name` was imported, and in which line of its package.

    An error of the type `ours` says all there is to say; of others the type is named.
    """
    what = str(error) if isinstance(error, ours) else f"{type(error).__name__}: {error}"
    places = _places_of(name.partition(".")[0])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if any(Path(frame.filename).is_relative_to(place) for place in places)]
    # A syntax error names its place itself.
    if not theirs or isinstance(error, SyntaxError):
        return what
    return f"{what} ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})"


def _places_of(package: str) -> list[str]:
    """Return the folders of a package, or the file of a single module."""
    spec = importlib.util.find_spec(package) if package else None
    if spec is None:
        return []
    return list(spec.submodule_search_locations or [spec.origin or ""])
