"""When a server wants to be asked again."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 3600.0
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def retry_after(value: str | None, now: float) -> float | None:
    """Read `Retry-After` as whole seconds from `now`, at most an hour: a number or a date; of anything else nothing."""
    text = (value or "").strip()
    try:
        seconds = float(text) if _SECONDS.fullmatch(text) else _until(text, now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return float(math.ceil(min(max(seconds, 0.0), LONGEST_SECONDS)))


def _until(date: str, now: float) -> float:
    moment = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
