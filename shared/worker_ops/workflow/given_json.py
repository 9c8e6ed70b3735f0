"""JSON that is typed, or in a file that is named."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from worker_runtime.postgres import storable_json


def given_json(text: str) -> str:
    """Read JSON, `@FILE` that holds it, or `@-` for standard input; return it as PostgreSQL can hold it."""
    try:
        source = _read(text[1:]) if text.startswith("@") else text
        return json.dumps(storable_json(json.loads(source, parse_constant=_refused)))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error


def _read(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
