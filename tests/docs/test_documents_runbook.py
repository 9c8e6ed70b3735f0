"""What the documents runbook names is there: states, problems, codes, metrics, settings."""

from __future__ import annotations

import re
from pathlib import Path

from ingestion_worker.problem import Problem
from ingestion_worker.settings import IngestionSettings
from worker_ops.documents.selecting import STATES
from worker_runtime.metric_catalogue import CATALOGUE
from worker_runtime.settings.variables import variables_of

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations" / "runbooks" / "documents.md").read_text()
HOW_TO = (ROOT / "docs" / "how-to" / "ingest-documents.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "workers" / "ingestion_worker").rglob("*.py")))


def first_column(heading: str) -> set[str]:
    """The names in the first column of the table with that heading."""
    table = RUNBOOK.partition(f"| {heading} |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_state_and_every_problem_is_explained() -> None:
    assert first_column("state") == set(STATES)
    assert first_column("problem") == set(Problem)


def test_every_code_of_a_source_is_told_and_exists() -> None:
    used = set(re.findall(r'(?:Retry|DeadLetter|Defer)\(\s*"([A-Z]+_[A-Z_]+)"', SOURCES))
    assert used <= set(re.findall(r"`([A-Z_]+)`", RUNBOOK))


def test_every_metric_and_setting_exists() -> None:
    known = {metric.name for metric in CATALOGUE}
    assert set(re.findall(r"`(intelliflow_\w+)`", RUNBOOK)) <= known
    names = {variable.name for variable in variables_of(IngestionSettings)}
    for page in (RUNBOOK, HOW_TO):
        mentioned = set(re.findall(r"`((?:DOCUMENT_MAX|DOCUMENT_MEM|DOCUMENT_WORK|OCR|ENABLE|EMBEDDING)_\w+)", page))
        assert mentioned <= names
