"""What a log line holds, and what it never does."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from worker_runtime import logs, telemetry
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


def test_one_json_line_an_event_with_the_worker_bound(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "events-worker")
    with logs.bound(queue="intelliflow:events", jobId="7", correlationId=None):
        structlog.get_logger().info("job_done", ms=3)
    (line,) = lines(capsys)
    assert line["event"] == "job_done"
    assert (line["worker"], line["queue"], line["jobId"], line["level"]) == (
        "events-worker",
        "intelliflow:events",
        "7",
        "info",
    )
    assert line["timestamp"].endswith("Z")
    assert "correlationId" not in line


def test_the_level_holds_for_ours_and_for_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warn", "w")
    structlog.get_logger().info("not_said")
    logging.getLogger("asyncpg").info("not said")
    logging.getLogger("asyncpg").warning("connection to %s lost", "postgres://u:hush@h/d")
    (line,) = lines(capsys)
    assert line["logger"] == "asyncpg"
    assert line["event"] == "connection to postgres://***@h/d lost"


def test_secrets_and_people_are_masked_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "w")
    try:
        int("550 no such user ann@example.com")
    except ValueError:
        structlog.get_logger().exception(
            "failed",
            password="hush",
            nested={"apiKey": "hush", "to": ["bob@example.com"]},
            url="redis://:hush@host/0",
            phone="+49 170 1234567",
            error=ValueError("carl@example.com"),
        )
    text = json.dumps(lines(capsys))
    for private in ("hush", "ann@", "bob@", "carl@", "1234567"):
        assert private not in text
    assert "***@example.com" in text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("to ann.o'neil+x@mail.example.com, now", "to ***@mail.example.com, now"),
        ("call +14158675309.", "call +***09."),
        ("at 2026-11-22T00:00:00+00:00 port 6379", "at 2026-11-22T00:00:00+00:00 port 6379"),
        ("smtp://user:p@ss@relay:25", "smtp://***@relay:25"),
        ("3 < 4 @ 5", "3 < 4 @ 5"),
        ("550 5.1.1 <x@y.example>: unknown", "550 5.1.1 <***@y.example>: unknown"),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_a_log_nobody_reads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def isatty(self) -> bool:
            return False

        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    logs.configure("info", "w")
    structlog.get_logger().info("said to nobody")


CARRIER = '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'


def test_a_trace_is_passed_on_and_named_in_logs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "w")
    with telemetry.job_span(logs.JobInHand("q", "1", 1), "n", CARRIER):
        structlog.get_logger().info("inside")
        passed_on = telemetry.inject()
    assert passed_on is not None
    assert json.loads(passed_on) == json.loads(CARRIER)
    assert lines(capsys)[0]["traceId"] == "0af7651916cd43dd8448eb211c80319c"
    assert telemetry.inject() is None


@pytest.mark.parametrize("carrier", ["", "{", "[]", "7", '{"traceparent": 7}', '{"traceparent": "nonsense"}'])
def test_a_carrier_that_cannot_be_read_is_none(carrier: str) -> None:
    with telemetry.job_span(logs.JobInHand("q", "1", 1), "n", carrier):
        assert telemetry.inject() is None
