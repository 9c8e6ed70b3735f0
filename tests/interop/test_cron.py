"""Cron patterns mean here what they mean to Node: hundreds of questions to both."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from worker_runtime.cron import next_due

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("node", "npm")

PATTERNS = """
* * * * * | */5 * * * * | 0 * * * * | 0 0 * * * | 30 3 * * * | 0 9 * * 1-5 | 0 9 * * MON-FRI | 0 0 1 * * | 0 0 31 * *
0 0 29 2 * | 15,45 8-18/2 * * * | 0 0 1 1 * | 0 12 * JAN,jul * | 0 0 * * 0 | 0 0 * * 7 | 0 0 * * SUN | 0 0 13 * 5
0 0 */2 * * | 0 0 L * * | 0 0 * * 5L | 0 0 * * friL | 0 0 * * 1#2 | 0 0 1 * MON#1 | 0 0 1,15 * 3 | 0 0 15 * *
0 0 ? * * | 0 0 * * ? | * * * * * * | */10 * * * * * | 0 30 9 * * 1-5 | 5-10 * * * * * | 0 1-23/5 * * *
59 59 23 31 12 * | 0 0 L 2 * | 0 0 * * 1-7 | 10/15 * * * * | 1 2 3 4 5 | 0 0 * * 1,3,5L | 0 9 * Feb * | * * * * | 9 * *
0 0 * * 5-7 | 0 0 1,L * * | @yearly | @annually | @monthly | @weekly | @daily | @hourly
@minutely | @secondly | @weekdays | @weekends
"""
REFUSED = """
a b c d e | 60 * * * * | * 24 * * * | * * 0 * * | * * 32 * * | * * * 13 * | * * * * 8 | * * * * * * * | 5-1 * * * *
*/0 * * * * | 1,,2 * * * * | 0 0 30 2 * | 0 0 * * 1#6 | 0 0 * * 1,2#1 | @noon | 0 0 15W * * | 0 0 LW * *
"""
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland"]
MOMENTS = ["2026-01-01T00:00:00.000+00:00", "2026-06-30T21:59:59.999+00:00", "2026-12-31T23:59:59.500+00:00"]
MOMENTS += ["2027-02-28T12:34:56.789+00:00", "2026-03-20T06:00:00.000+00:00", "2026-10-20T06:00:00.001+00:00"]
ASK_NODE = """
const { getNextMillis } = require('bullmq');
const answers = JSON.parse(require('fs').readFileSync(0)).map(([pattern, millis, tz]) => {
  try { return getNextMillis(millis, { pattern, ...(tz && { tz }) }) ?? null; } catch { return null; }
});
process.stdout.write(JSON.stringify(answers));
"""

Question = tuple[str, int, str | None]


def listed(text: str) -> list[str]:
    return [pattern.strip() for line in text.strip().splitlines() for pattern in line.split("|")]


def questions(patterns: list[str]) -> list[Question]:
    moments = [round(datetime.fromisoformat(moment).timestamp() * 1000) for moment in MOMENTS]
    return list(itertools.product(patterns, moments, ZONES))


def nodes_answers(packages: Path, asked: list[Question], home: str = "UTC") -> list[int | None]:
    done = subprocess.run(
        ["node", "-e", ASK_NODE],
        cwd=packages,
        env={**os.environ, "TZ": home},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers: list[Any] = json.loads(done.stdout)
    return answers


def test_a_pattern_is_due_when_it_is_for_node(packages: Path) -> None:
    asked = questions(listed(PATTERNS))
    ours = {question: next_due(*question) for question in asked}
    assert ours == dict(zip(asked, nodes_answers(packages, asked), strict=True))


def test_what_node_refuses_is_refused_here(packages: Path) -> None:
    asked = questions(listed(REFUSED))
    assert set(nodes_answers(packages, asked)) == {None}
    for question in asked:
        with pytest.raises(ValueError, match="cron pattern"):
            next_due(*question)


def test_without_a_zone_node_takes_its_own_and_we_take_utc(packages: Path) -> None:
    nine: list[Question] = [("0 9 * * *", 0, None)]
    nine_o_clock = [next_due(*question) for question in nine]
    assert nodes_answers(packages, nine) == nine_o_clock
    assert nodes_answers(packages, nine, home="Asia/Kathmandu") != nine_o_clock


def test_a_hashed_pattern_is_node_s_alone(packages: Path) -> None:
    hashed: list[Question] = [("H * * * *", 0, "UTC")]
    assert nodes_answers(packages, hashed) != [None]
    with pytest.raises(ValueError, match="cron pattern"):
        next_due(*hashed[0])


def test_where_the_clock_changes_by_half_an_hour_only_we_go_on(packages: Path) -> None:
    before, nine = (datetime.fromisoformat(f"2026-04-0{then}") for then in ("5T01:10+11:00", "5T09:00+10:30"))
    asked: list[Question] = [("0 9 * * *", round(before.timestamp() * 1000), "Australia/Lord_Howe")]
    assert nodes_answers(packages, asked) == [None]
    assert next_due(*asked[0]) == round(nine.timestamp() * 1000)
