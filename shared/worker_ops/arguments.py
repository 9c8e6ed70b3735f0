"""What is typed after a verb, read and checked: ids, spans of time, moments."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

# Where a command or a verb is added.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  it has no public name
SPAN = re.compile(r"(\d+)(ms|s|m|h|d)")
UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/s)?")


def event_id(text: str) -> str:
    """Read the id of an event."""
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an event id (a UUID)") from None


def aggregate(text: str) -> tuple[str, str]:
    """Read `TYPE:ID`; an id may hold colons, a type may not."""
    kind, colon, name = text.partition(":")
    if not (kind and colon and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not TYPE:ID, like lead:l-1")
    return kind, name


def span(text: str) -> timedelta:
    """Read `90s`, `15m`, `2h`, `7d`."""
    found = SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a span of time like 90s, 15m, 2h or 7d")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def moment(text: str) -> datetime:
    """Read an ISO-8601 time, in UTC unless it says otherwise, or a span of time: so long ago."""
    if SPAN.fullmatch(text):
        return datetime.now(UTC) - span(text)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is neither a time like 2026-11-22T09:00:00Z nor a span like 2h (so long ago)"
        raise argparse.ArgumentTypeError(message) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def rate(text: str) -> float:
    """Read events a second: `100` or `100/s`."""
    found = RATE.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate like 100/s")
    return float(found[1])


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def whoever_runs_this() -> str:
    """Name the person as the system knows them; a container may run as a number without a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def add_author(parser: argparse.ArgumentParser, *, reason_needed: bool) -> None:
    """Ask who does it and why; both are kept with what is changed."""
    parser.add_argument("--reason", metavar="WHY", required=reason_needed, default="", help="why; kept with the change")
    parser.add_argument("--by", metavar="WHO", default=whoever_runs_this(), help="who (default: %(default)s)")
    parser.add_argument("--apply", action="store_true", help="do it, instead of saying what would be done")
