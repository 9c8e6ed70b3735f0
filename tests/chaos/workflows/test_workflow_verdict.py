"""The verdict finds what it is there to find: each thing that may go wrong, beside a run in which nothing did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chaos.history import Entry
from chaos.workflows.verdict import Letter, Record, Remains, Row, Turn, judge

ONE, WORKER, OTHER = "00000000-0000-4000-8000-000000000001", "workflow-worker 7", "workflow-worker 8"
ROW = Row(ONE, "org-1", "chaos.refused", "failed", 1, 1, 0, "HTTP_422", None, None, 0)
CLAIM = Turn(ONE, WORKER, "queued", "running", None, "w-7", 0, 1, 0, expired=True)
END = Turn(ONE, WORKER, "running", "failed", "w-7", None, 1, 2, 0, expired=False)
RECORDS = [Record(ONE, "first", 0, 1, "http", "completed"), Record(ONE, "never", 0, 1, "http", "failed")]
WELL = Remains([ROW], RECORDS, [Letter(ONE, 1, 1, "HTTP_422")], [CLAIM, END])


def told(what: str, at: float, step: str = "", **more: Any) -> Entry:
    return Entry(what, at, 1, **{"event": ONE, "handler": step, "run": step, **more})


HISTORY = [
    told("starting", 1.0),
    told("started", 1.1),
    told("asked", 2.0, "first"),
    told("effect", 2.0, "first"),
    told("asked", 3.0, "never"),
]


def test_a_run_in_which_nothing_went_wrong_is_found_right() -> None:
    verdict = judge(HISTORY, WELL)
    assert verdict.wrong == []
    assert (verdict.counted["executions failed"], verdict.counted["requests"]) == (1, 2)


@pytest.mark.parametrize(
    ("invariant", "changes"),
    [
        (1, {"rows": []}),
        (1, {"rows": [ROW, ROW._replace(id="another")]}),
        (1, {"rows": [ROW._replace(status="running")]}),
        (2, {"rows": [ROW._replace(owner="w-7")]}),
        (2, {"messages": [ONE]}),
        (2, {"waits": 1}),
        (2, {"at_work": 1}),
        (2, {"surprises": ["ended by itself with 1"]}),
        (4, {"jobs": {"a job of nobody": 1}}),
        (5, {"records": RECORDS[:1]}),
        (5, {"records": [*RECORDS, RECORDS[1]._replace(attempt=3)]}),
        (5, {"rows": [ROW._replace(total_attempts=2)]}),
        (5, {"letters": []}),
        (5, {"letters": [*WELL.letters, *WELL.letters]}),
        (6, {"rows": [ROW._replace(status="cancelled")]}),
        (
            6,
            {
                "rows": [ROW._replace(error="STALLED: it was not")],
                "letters": [Letter(ONE, 1, 1, "STALLED: it was not")],
            },
        ),
        (6, {"rows": [ROW._replace(retry_count=5)], "letters": [Letter(ONE, 5, 1, "HTTP_422")]}),
        (7, {"strangers": ["somebody wrote without the lease"]}),
        (7, {"turns": [CLAIM, END._replace(by=OTHER)]}),
        (7, {"turns": [CLAIM, END._replace(new_token=1)]}),
        (7, {"turns": [CLAIM, CLAIM._replace(by=OTHER, old_status="running", expired=False), END]}),
    ],
)
def test_what_is_left_and_should_not_be_is_found(invariant: int, changes: dict[str, Any]) -> None:
    found = judge(HISTORY, replace(WELL, **changes)).wrong
    assert any(sentence.startswith(f"{invariant}:") for sentence in found), found


@pytest.mark.parametrize(
    ("invariant", "more"),
    [
        (3, [told("effect", 4.0, "first")]),
        (3, [told("effect", 4.0, "first", event="nobody")]),
        (5, [told("asked", 4.0, "first")]),
        # One death explains one request, and none explains an effect.
        (5, [Entry("killed", 2.5, 7), told("asked", 4.0, "first"), told("asked", 5.0, "first")]),
        (3, [Entry("killed", 2.5, 7), told("effect", 4.0, "first")]),
        # Of another organisation, and before.
        (5, [Entry("reset", 2.5, 7, aggregate="org-2"), told("asked", 4.0, "first")]),
        (5, [Entry("killed", 1.5, 7), told("asked", 4.0, "first")]),
    ],
)
def test_what_happened_and_should_not_have_is_found(invariant: int, more: list[Entry]) -> None:
    found = judge([*HISTORY, *more], WELL).wrong
    assert any(sentence.startswith(f"{invariant}:") for sentence in found), found


def test_a_death_explains_a_request_that_came_again() -> None:
    verdict = judge([*HISTORY, Entry("killed", 2.5, 7), told("asked", 4.0, "first")], WELL)
    assert verdict.wrong == []
    assert verdict.counted["requests again"] == 1
