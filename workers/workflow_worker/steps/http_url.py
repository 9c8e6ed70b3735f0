"""Where a request goes: what somebody else gives may fill a place in a URL, and not lead to another."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["way_out"]

ORIGIN = re.compile(r"(https?://)((?:\{\{.*?\}\}|[^/?#{])*)(?!\{)", re.DOTALL | re.IGNORECASE)
EXPRESSION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
ANY_HOST, PART_OF_HOST = "[^/?#@]*", "[^/?#@:]*"
# The client, as browsers do, goes up by these, however they are written.
DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


def way_out(source: str, url: str) -> str | None:
    """Say how a URL leaves the place that its text, `source`, has for it; `None` when it does not."""
    if not _has_its_host(source, url):
        return "a value in the host leads to another one"
    try:
        climbs = DOTS.search(urlsplit(url).path)
    except ValueError:
        # The guard says better what is no URL.
        return None
    return "goes up in the path, by . or .." if climbs else None


def _has_its_host(source: str, url: str) -> bool:
    origin = ORIGIN.match(source)
    if origin is None or "{" not in origin[2]:
        return True
    fixed = [re.escape(part) for part in EXPRESSION.split(origin[2])]
    place = PART_OF_HOST if any(fixed) else ANY_HOST
    return re.match(f"{origin[1]}{place.join(fixed)}(?:[/?#]|$)", url, re.IGNORECASE) is not None
