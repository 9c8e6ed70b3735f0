"""The diffs in the document are what is there."""

from __future__ import annotations

import re
from pathlib import Path

from ingestion_worker.reading.extractors import EXTRACTORS, extractor_of
from ingestion_worker.reading.media_types import NAMES

ROOT = Path(__file__).parents[2]
READING = ROOT / "workers/ingestion_worker/reading"


def test_the_lines_are_the_lines() -> None:
    page = (ROOT / "docs/how-to/add-a-format.md").read_text()
    name, line = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)

    assert _after(name) in (READING / "media_types.py").read_text()
    assert _after(line) in (READING / "extractors/__init__.py").read_text()


def _after(diff: str) -> str:
    return "".join(line[1:] + "\n" for line in diff.splitlines())


def test_every_name_has_somebody_who_reads_it() -> None:
    assert EXTRACTORS.keys() == NAMES.keys()
    assert all(callable(extractor_of(media_type)) for media_type in NAMES)
