"""JSON that is typed, or in a file that is named, or in a column."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from worker_runtime.postgres import UnreadableJson, read_json, storable_json

MOST_SHOWN = 200


def given_json(text: str) -> str:
    """Read JSON, `@FILE` that holds it, or `@-` for standard input; return it as PostgreSQL can hold it."""
    try:
        source = _read(text[1:]) if text.startswith("@") else text
        return json.dumps(storable_json(read_json(source)))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:MOST_SHOWN]!r} cannot be used: it {error}") from error


def stored_json(text: str | None) -> Any:
    """Return a column's JSON; what cannot be read is shown as it stands there."""
    try:
        return None if text is None else read_json(text)
    except UnreadableJson:
        return text


def _read(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
