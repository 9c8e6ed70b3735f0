"""What the outbox runbook names is there: metrics, log lines, settings, codes."""

from __future__ import annotations

import re
from pathlib import Path

from events_worker.settings import EventsSettings
from worker_runtime.metric_catalogue import CATALOGUE
from worker_runtime.settings.variables import variables_of

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations" / "runbooks" / "outbox.md").read_text()
SOURCES = "\n".join(
    path.read_text() for folder in ("shared", "workers") for path in sorted((ROOT / folder).rglob("*.py"))
)


def named(pattern: str, text: str = RUNBOOK) -> set[str]:
    found = set(re.findall(pattern, text))
    assert found
    return found


def test_every_metric_exists_and_none_of_the_outbox_is_left_out() -> None:
    known = {metric.name for metric in CATALOGUE}
    assert named(r"`(intelliflow_\w+)`") <= known
    assert {name for name in known if name.startswith("intelliflow_outbox_")} <= named(r"intelliflow_outbox_\w+")


def test_every_log_line_is_logged() -> None:
    section = RUNBOOK.partition("## What the log says")[2]
    for line in named(r"`([a-z]+_\w+)`", section):
        assert f'"{line}"' in SOURCES, line


def test_every_setting_exists() -> None:
    known = {variable.name for variable in variables_of(EventsSettings)}
    assert named(r"`((?:OUTBOX|QUEUE)_[A-Z_]+)`") | {"OPS_TOKEN"} <= known


def test_every_code_is_given_by_somebody() -> None:
    section = RUNBOOK.partition("| code |")[2].partition("\n\n")[0]
    for code in named(r"\| `([A-Z_]+)` \|", section):
        assert code in SOURCES, code
