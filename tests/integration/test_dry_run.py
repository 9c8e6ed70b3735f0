"""`intelliflow outbox dry-run`: what an event would do, told without doing it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import psycopg
import pytest

from rule_files import EVENT_ID, notify, rules_file
from worker_ops.__main__ import run
from worker_ops.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, processed_at)
VALUES (%s, 'lead.created', 'Lead', 'l-1', 't-1', %s, now())
"""
NOWHERE = "postgresql://u:geheim@127.0.0.1:1/d"


class Terminal:
    """The command line, with no Redis to be found."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.set = monkeypatch.setenv
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.said = ""
        self.set("REDIS_URL", "redis://127.0.0.1:1/0")

    def types(self, text: str) -> None:
        self._monkeypatch.setattr("sys.stdin", io.StringIO(text))

    def dry_run(self, *arguments: str) -> tuple[ExitCode, str]:
        code = run(["outbox", "dry-run", *arguments])
        output, self.said = self._capsys.readouterr()
        return code, output

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        code, output = self.dry_run(*arguments, "-o", "json")
        assert code is ExitCode.OK, self.said
        return list(json.loads(output))

    def event(self, event_type: str = "lead.created", payload: object = LEAD, **more: object) -> str:
        path = self.folder / f"{uuid4().hex}.json"
        path.write_text(json.dumps({"eventType": event_type, "payload": payload, **more}))
        return str(path)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def test_each_rule_is_told_and_each_job_with_its_id(terminal: Terminal) -> None:
    rows = terminal.rows(terminal.event(eventId=EVENT_ID, metadata={"correlationId": "c-1"}))
    assert [(row["rule"], row["applies"], row["why"]) for row in rows] == [
        ("lead-welcome", "yes", ""),
        ("lead-assigned-owner", "no", "it is for lead.assigned"),
        ("lead-converted-owner", "no", "it is for lead.converted"),
    ]
    assert rows[1]["jobs"] == []
    (job,) = rows[0]["jobs"]
    assert (job["queue"], job["name"]) == ("intelliflow:notifications:email", "email")
    assert job["jobId"] == str(uuid5(UUID(EVENT_ID), "lead-welcome"))
    assert job["payload"]["recipient"] == {"id": "l-1", "email": "***@example.com"}
    assert job["payload"]["metadata"]["correlationId"] == "c-1"
    assert job["payload"]["tenantId"] == "t-1"


def test_a_person_gets_a_table_and_the_payloads(terminal: Terminal) -> None:
    terminal.types(json.dumps({"eventType": "lead.created", "payload": LEAD}))
    code, output = terminal.dry_run("-")
    assert code is ExitCode.OK
    assert output.splitlines()[:3] == [
        "rule                  applies  why",
        "lead-welcome          yes",
        "lead-assigned-owner   no       it is for lead.assigned",
    ]
    assert "\nintelliflow:notifications:email " in output
    assert '"templateId": "lead-welcome"' in output
    assert "ada@" not in output


def test_it_says_which_part_of_a_condition_is_false(terminal: Terminal) -> None:
    path = rules_file(terminal.folder, [notify("a", when="payload.score > 5 and payload.email == 'x'")])
    (row,) = terminal.rows(terminal.event(payload=LEAD | {"score": 7}), "--rules", str(path))
    assert (row["applies"], row["why"], row["line"]) == ("no", "`payload.email == 'x'` is false", 2)


def test_the_rules_are_those_the_worker_would_have(terminal: Terminal) -> None:
    terminal.set("EVENT_RULES_FILE", str(rules_file(terminal.folder, [notify("mine")])))
    terminal.set("QUEUE_PREFIX", "{acme}")
    (row,) = terminal.rows(terminal.event())
    assert (row["rule"], row["jobs"][0]["queue"]) == ("mine", "{acme}:notifications:email")


def test_workflows_are_told_beside_the_jobs(terminal: Terminal) -> None:
    written = "{start: follow-up, key: payload.leadId, input: {a: payload.email}}"
    start = f"{{name: start, event: lead.created, workflow: {written}}}"
    signal = "{name: tell, event: lead.created, workflow: {signal: greeted, correlation: payload.leadId}}"
    path = rules_file(terminal.folder, [start, signal, notify("mail")])
    event = terminal.event(eventId=EVENT_ID)
    started, told, mailed = terminal.rows(event, "--rules", str(path))
    execution_id = str(uuid5(uuid5(UUID(EVENT_ID), "start"), "workflow"))
    assert started["jobs"] == told["jobs"] == mailed["workflows"] == []
    assert started["workflows"] == [
        {"start": "follow-up", "executionId": execution_id, "key": "l-1", "payload": {"a": "***@example.com"}}
    ]
    (told,) = told["workflows"]
    assert (told["signal"], told["correlation"], told["payload"]["leadId"]) == ("greeted", "l-1", "l-1")
    _, output = terminal.dry_run(event, "--rules", str(path))
    assert f"\nstart follow-up executionId {execution_id} key l-1\n{{\n" in output
    assert "\nsignal greeted correlation l-1\n{\n" in output


def test_where_one_rule_fails_no_job_is_made(terminal: Terminal) -> None:
    path = rules_file(terminal.folder, [notify("good"), notify("bad", recipient="{email: payload.boss}")])
    code, output = terminal.dry_run(terminal.event(), "--rules", str(path), "-o", "ndjson")
    rows = [json.loads(line) for line in output.splitlines()]
    assert code is ExitCode.FAILED
    assert [(row["rule"], row["applies"], row["jobs"]) for row in rows] == [("good", "yes", []), ("bad", "fails", [])]
    assert rows[1]["why"] == "recipient.email: `payload.boss`: there is no field boss"
    assert terminal.said == "the event would be a dead letter (RULE_FAILED), and nothing would be made of it\n"


def test_secrets_and_signed_addresses_are_not_shown(terminal: Terminal) -> None:
    ingest = "{documentId: payload.id, sourceUrl: payload.url, options: {password: payload.key}}"
    path = rules_file(terminal.folder, [f"{{name: a, event: '*', ingest: {ingest}}}"])
    payload = {"id": "d-1", "url": "https://store.example/d-1.pdf?X-Signature=geheim", "key": "geheim"}
    code, output = terminal.dry_run(terminal.event("paper.stored", payload), "--rules", str(path), "-o", "json")
    assert code is ExitCode.OK
    assert "geheim" not in output
    assert "https://store.example/d-1.pdf?***" in output


class TestFromTheOutbox:
    def committed(self, database_url: str) -> str:
        event_id = str(uuid4())
        with psycopg.connect(database_url) as connection:
            connection.execute(INSERT, [event_id, json.dumps(LEAD)])
        return event_id

    def test_a_committed_event_is_found_in_the_outbox_and_the_archive(
        self, terminal: Terminal, database_url: str
    ) -> None:
        terminal.set("DATABASE_URL", database_url)
        event_id = self.committed(database_url)
        (job,) = terminal.rows(event_id)[0]["jobs"]
        assert job["jobId"] == str(uuid5(UUID(event_id), "lead-welcome"))
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM domain_event_outbox")
        assert terminal.rows(event_id)[0]["jobs"] == [job]
        assert terminal.dry_run(str(uuid4()))[0] is ExitCode.NOT_FOUND
        assert "neither the outbox nor its archive has an event" in terminal.said

    def test_the_endpoints_are_those_of_the_tenant(self, terminal: Terminal, database_url: str) -> None:
        path = rules_file(terminal.folder, ["{name: hooks, event: 'lead.*', webhook: }"])
        terminal.set("ENABLE_WEBHOOK", "true")
        assert terminal.rows(terminal.event(), "--rules", str(path))[0]["jobs"] == []
        assert "DATABASE_URL is not set: which endpoints of t-1 want lead.created is not known here" in terminal.said
        terminal.set("DATABASE_URL", database_url)
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "INSERT INTO tenant_webhook_endpoint (tenant_id, url) VALUES ('t-1', 'https://a.example')"
            )
        (job,) = terminal.rows(terminal.event(), "--rules", str(path))[0]["jobs"]
        assert job["queue"] == "intelliflow:notifications:webhook"
        assert job["payload"]["recipient"]["webhookUrl"] == "https://a.example"

    def test_what_is_missing_is_said_with_a_code(self, terminal: Terminal) -> None:
        assert terminal.dry_run(str(uuid4()))[0] is ExitCode.FAILED
        assert "DATABASE_URL is not set" in terminal.said
        terminal.set("DATABASE_URL", NOWHERE)
        assert terminal.dry_run(str(uuid4()))[0] is ExitCode.UNREACHABLE
        assert "geheim" not in terminal.said

    def test_an_old_schema_is_told_with_the_remedy(self, terminal: Terminal, database_url: str) -> None:
        terminal.set("DATABASE_URL", database_url)
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM _yoyo_migration")
        assert terminal.dry_run(str(uuid4()))[0] is ExitCode.FAILED
        assert "run `intelliflow migrate`" in terminal.said


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "the event is not JSON"),
        ("[1]", "the event must be a JSON object"),
        ("{}", "the event cannot be read: eventType is missing"),
        ('{"eventType": 3}', "the event cannot be read: eventType: Input should be a valid string"),
        ('{"eventType": "lead.created"}', "dead letter before any rule is asked: INVALID_PAYLOAD: email is missing"),
        ('{"eventType": "lead.created", "payload": []}', "payload: Input should be a valid dictionary"),
        ('{"eventType": "x", "metadata": 5}', "metadata: Input should be a valid dictionary"),
    ],
)
def test_an_event_that_cannot_be_used_says_why(terminal: Terminal, text: str, complaint: str) -> None:
    terminal.types(text)
    code, output = terminal.dry_run("-")
    assert (code, output) == (ExitCode.FAILED, "")
    assert complaint in terminal.said


def test_files_that_cannot_be_used_say_why(terminal: Terminal) -> None:
    assert terminal.dry_run("nothing.json")[0] is ExitCode.NOT_FOUND
    assert terminal.said == "error: there is no file nothing.json, and it is no id of an event\n"
    assert terminal.dry_run(str(terminal.folder))[0] is ExitCode.FAILED
    path = rules_file(terminal.folder, ["{nome: a}", "{name: b, event: lead.craeted, job: {task: x}}"])
    assert terminal.dry_run(terminal.event(), "--rules", str(path))[0] is ExitCode.FAILED
    assert [line.removeprefix(f"error: {path}:")[:2] for line in terminal.said.splitlines()] == ["2:", "2:", "2:", "3:"]
    with pytest.raises(SystemExit) as usage:
        run(["outbox", "dry-run"])
    assert usage.value.code == ExitCode.USAGE
