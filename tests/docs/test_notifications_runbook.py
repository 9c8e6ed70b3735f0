"""What the notifications runbook names is there: states, outcomes, metrics, settings, tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from command_line import Operator, operator
from events_worker.settings import EventsSettings
from notifications_worker.settings import NotificationsSettings
from notifications_worker.transmission import OUTCOMES
from worker_ops.deliveries.selecting import STATES
from worker_ops.exit_codes import ExitCode
from worker_ops.person.places_store import PLACES
from worker_runtime.metric_catalogue import CATALOGUE, DEFERRAL_CODES
from worker_runtime.settings.variables import variables_of

__all__ = ["operator"]

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations" / "runbooks" / "notifications.md").read_text()
SOURCES = "\n".join(
    path.read_text() for folder in ("shared", "workers") for path in sorted((ROOT / folder).rglob("*.py"))
)


def first_column(heading: str) -> set[str]:
    """The names in the first column of the table with that heading."""
    table = RUNBOOK.partition(f"| {heading} |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def test_every_state_and_outcome_is_explained() -> None:
    assert first_column("state") == set(STATES)
    assert first_column("outcome") == set(OUTCOMES)


def test_every_place_is_named_but_the_note_of_the_command_itself() -> None:
    assert first_column("place") == {place.table for place in PLACES} - {"notification_edit"}


def test_every_exit_code_is_told() -> None:
    table = RUNBOOK.partition("| exit code |")[2].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)] == list(ExitCode)


def test_every_metric_setting_and_code_exists() -> None:
    known = {metric.name for metric in CATALOGUE}
    assert set(re.findall(r"`(intelliflow_\w+)`", RUNBOOK)) <= known
    settings = {variable.name for one in (EventsSettings, NotificationsSettings) for variable in variables_of(one)}
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", RUNBOOK)) <= settings | set(DEFERRAL_CODES)


def test_every_code_of_a_wait_is_explained() -> None:
    of_others = {"JOBS_DATABASE_UNAVAILABLE", "REDIS_UNAVAILABLE", "SCANNER_UNAVAILABLE"}
    assert first_column("code") == set(DEFERRAL_CODES) - of_others


def test_every_code_that_is_named_exists() -> None:
    for code in re.findall(r"code `([A-Z_]+)`|\(`([A-Z_]+)`\)", RUNBOOK):
        assert "".join(code) in SOURCES


def test_an_address_is_suppressed_and_let_go_in_the_order_of_the_page(operator: Operator) -> None:
    section = RUNBOOK.partition("## Suppressed addresses")[2].partition("\n## ")[0]
    commands = re.findall(r"^intelliflow (suppressions .+)$", section, re.MULTILINE)
    said = [operator.run("", *shlex.split(command)) for command in commands]
    assert [one.code for one in said] == [0, 0, 0, 0], said
    assert "removed" in said[-1].out
