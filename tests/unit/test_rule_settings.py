"""A rules file as part of the events-worker's configuration: told with the rest of it, before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events_worker.settings import EventsSettings
from rule_files import notify, rules_file
from worker_runtime.settings import SettingsError, load, warnings_about

if TYPE_CHECKING:
    from pathlib import Path

HOOK = "{name: hook, event: 'lead.*', webhook: }"
READ = "{name: read, event: 'lead.*', ingest: {documentId: payload.id, sourceUrl: payload.url}}"
TEXT = "{name: text, event: lead.created, channel: SMS, recipient: {phone: payload.phone}, body: hi}"


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/d")


def given(monkeypatch: pytest.MonkeyPatch, path: Path, **variables: str) -> None:
    for name, value in {"EVENT_RULES_FILE": str(path), **variables}.items():
        monkeypatch.setenv(name, value)


def problems() -> list[str]:
    with pytest.raises(SettingsError) as error:
        load(EventsSettings)
    return error.value.problems


def test_the_shipped_rules_need_no_switch_and_earn_no_warning() -> None:
    settings = load(EventsSettings)
    assert [rule.name for rule in settings.rules()] == ["lead-welcome", "lead-assigned-owner", "lead-converted-owner"]
    assert warnings_about(settings) == []


def test_whatever_is_wrong_is_told_with_every_other_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = rules_file(tmp_path, [HOOK, TEXT, READ, "{name: start, event: lead.created, job: {task: w}}"])
    given(monkeypatch, path, OUTBOX_BATCH_SIZE="0", ENABLE_TEXT_EXTRACTION="false")
    monkeypatch.delenv("DATABASE_URL")
    lines = problems()
    told = "\n".join(lines)
    for complaint in (
        f"{path}:2: rules.0.webhook: WEBHOOK is switched off: set ENABLE_WEBHOOK=true or remove the rule",
        f"{path}:3: rules.1: SMS is switched off: set ENABLE_SMS=true or remove the rule",
        f"{path}:4: rules.2.ingest: TEXT_EXTRACTION is switched off: set ENABLE_TEXT_EXTRACTION=true or remove",
        f"{path}:5: rules.3.job: JOB_QUEUE is switched off: set JOB_QUEUE_DATABASE_URL or remove the rule",
    ):
        assert complaint in told
    assert any(line.startswith("DATABASE_URL is not set") for line in lines)
    assert any(line.startswith("OUTBOX_BATCH_SIZE='0' is too small") for line in lines)


def test_what_nobody_sends_is_warned_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = rules_file(tmp_path, [HOOK, READ, notify("a", event="lead.craeted")])
    given(monkeypatch, path, ENABLE_WEBHOOK="true")
    settings = load(EventsSettings)
    assert len(settings.rules()) == 3
    assert warnings_about(settings) == [
        f"{path}:4: rules.2.event: lead.craeted has no contract; did you mean lead.created?",
    ]


def test_a_rule_that_defers_a_job_needs_the_database_of_the_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = rules_file(tmp_path, ["{name: start, event: lead.created, job: {task: w}}"])
    given(monkeypatch, path)
    assert problems() == [
        (
            f"EVENT_RULES_FILE='{path}': {path}:2: rules.0.job: JOB_QUEUE is switched off: set"
            " JOB_QUEUE_DATABASE_URL or remove the rule; allowed: a file with routing rules"
        )
    ]
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", "mysql://localhost/jobs")
    assert [line.partition(" ")[0].rstrip(":") for line in problems()] == ["JOB_QUEUE_DATABASE_URL"]
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", "postgresql://localhost:5433/jobs")
    assert [rule.name for rule in load(EventsSettings).rules()] == ["start"]
