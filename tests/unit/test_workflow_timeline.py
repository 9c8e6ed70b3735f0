"""The timeline of an execution: a bar for each attempt, an axis that keeps order, and a picture for everybody."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_ops.workflow.timeline import Axis, Timeline, span, timeline_of
from worker_ops.workflow.timeline_svg import DARK, LEFT, LIGHT, RIGHT, picture
from worker_ops.workflow.timeline_text import WIDTH, drawn

BEGAN = datetime(2026, 11, 22, 3, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"
# Of the guidelines for accessible content: for text, and for whatever else one must see to understand.
TEXT_CONTRAST, SHAPE_CONTRAST = 4.5, 3.0
TEXTS, SHAPES = ("ink", "faint"), ("completed", "failed", "running", "waiting", "waited", "queued", "gap")


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def execution(status: str = "completed", now: float = 100.0, **columns: Any) -> dict[str, Any]:
    over = status in {"completed", "failed", "cancelled"}
    return {
        "id": "6f0c2c2e-7d1d-4c65-9d6c-0b8f2a4d9c11",
        "workflow": "order-followup",
        "status": status,
        "created_at": BEGAN,
        "started_at": at(1),
        "completed_at": at(now) if over else None,
        "now": at(now),
        "ready_at": at(now + 20),
        "next_retry_at": None,
        "lease_owner": "host:1",
        "round": 0,
    } | columns


def step(name: str, begins: float, ends: float | None, status: str = "completed", **columns: Any) -> dict[str, Any]:
    return {
        "step": name,
        "round": 0,
        "attempt": 1,
        "kind": "http",
        "status": status,
        "output": None,
        "error": None,
        "started_at": at(begins),
        "finished_at": None if ends is None else at(ends),
    } | columns


STEPS = [
    step("charge", 1, 2, "failed", error="HTTP_503: pay.example\nanswered 503"),
    step("charge", 7, 8, "failed", attempt=2, error="HTTP_503: bob@example.com"),
    step("charge", 38, 39, attempt=3),
    step("rest", 39, 86_439, kind="wait"),
    step(
        "paid", 86_439, None, "waiting", kind="wait_for_event", output='{"event": "invoice.paid", "correlation": "o"}'
    ),
]
DAY_LONG = timeline_of(execution("waiting", 86_500), STEPS)


def test_every_attempt_has_a_bar_that_says_how_it_ended() -> None:
    assert [(bar.label, bar.state) for bar in DAY_LONG.bars] == [
        ("queued", "queued"),
        ("charge", "failed"),
        ("charge (attempt 2)", "failed"),
        ("charge (attempt 3)", "completed"),
        ("rest", "waited"),
        ("paid", "waiting"),
    ]
    notes = [bar.note for bar in DAY_LONG.bars]
    assert notes[1] == "failed in 1.0 s, next attempt after 5.0 s: HTTP_503: pay.example answered 503"
    assert "bob@" not in notes[2]
    assert notes[4:] == ["waited 1 d", "waiting for invoice.paid of o"]
    assert DAY_LONG.bars[1].next_at == at(7)
    assert DAY_LONG.summary == "waiting, 1 d old"


def test_the_next_attempt_to_come_is_drawn() -> None:
    pending = execution("retry_pending", 10, next_retry_at=at(38))
    bars = timeline_of(pending, [step("charge", 7, 8, "failed", error="X: no")]).bars
    assert bars[-1].next_at == at(38)
    final = step("charge", 7, 8, "failed", error="X: no", output='{"final": true}')
    assert timeline_of(pending, [final]).bars[-1].next_at is None


def test_a_turn_under_way_is_a_bar_with_its_lease() -> None:
    running = timeline_of(execution("running", 60), [step("charge", 1, 50)]).bars[-1]
    assert (running.state, running.begins, running.ends) == ("running", at(50), at(60))
    assert running.note == "at work at host:1; its lease ends in 20.0 s"
    lost = timeline_of(execution("running", 60, ready_at=at(0)), []).bars[-1]
    assert "its lease ended 1 min ago" in lost.note


def test_one_that_has_not_begun_and_one_of_another_round_are_drawn() -> None:
    queued = timeline_of(execution("queued", 5, started_at=None), [])
    assert [(bar.label, bar.note) for bar in queued.bars] == [("queued", "not started")]
    again = timeline_of(execution(round=1), [step("charge", 1, 2, round=1, attempt=2)])
    assert again.bars[-1].label == "charge (attempt 2) (round 2)"


def test_days_of_waiting_take_little_room_and_work_keeps_its_proportions() -> None:
    axis = Axis(DAY_LONG)
    first, third = DAY_LONG.bars[1], DAY_LONG.bars[3]
    lengths = [axis.place(bar.ends) - axis.place(bar.begins) for bar in (first, third)]
    assert lengths[0] == pytest.approx(lengths[1])
    rest = DAY_LONG.bars[4]
    assert lengths[0] > axis.place(rest.ends) - axis.place(rest.begins) > 0
    assert 86_400.0 in [seconds for _, seconds in axis.shortened]


def test_the_text_has_a_line_for_each_bar() -> None:
    lines = drawn(DAY_LONG).splitlines()
    assert len(lines) == 2 + len(DAY_LONG.bars)
    assert lines[2].split("|")[1].strip(" ").replace("x", "").replace("~", "") == ""
    assert "x~" in lines[2]
    assert "shortened" in lines[-1]


def rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.builds(
        lambda name, begins, took, status, kind, attempt, error: step(
            name, begins, begins + took, status, kind=kind, attempt=attempt, error=error
        ),
        st.text(),
        st.floats(0, 1e7),
        st.sampled_from([0.0, 0.001, 1.0, 3_600.0, 1e6]),
        st.sampled_from(["completed", "failed", "waiting"]),
        st.sampled_from(["http", "wait"]),
        st.integers(1, 9),
        st.none() | st.text(),
    )
    return st.lists(one, max_size=20)


def timelines() -> st.SearchStrategy[Timeline]:
    statuses = st.sampled_from(["queued", "running", "waiting", "retry_pending", "completed", "failed"])
    return st.builds(
        lambda status, now, steps, name: timeline_of(
            execution(status, now, next_retry_at=at(now + 5), workflow=name), steps
        ),
        statuses,
        st.floats(2, 1e7),
        rows(),
        st.text(),
    )


@given(timelines())
def test_an_axis_keeps_order_and_stays_within_its_ends(timeline: Timeline) -> None:
    axis = Axis(timeline)
    moments = sorted(moment for bar in timeline.bars for moment in (bar.begins, bar.ends))
    places = [axis.place(moment) for moment in moments]
    assert all(0 <= place <= 1 + 1e-9 for place in places)
    assert all(left <= right + 1e-9 for left, right in pairwise(places))


@given(timelines())
def test_a_line_of_text_is_as_wide_as_the_others(timeline: Timeline) -> None:
    edges = [line for line in drawn(timeline).splitlines() if line.count("|") >= 2]
    assert len(edges) >= 1 + len(timeline.bars)
    assert len(drawn(timeline, WIDTH).encode()) > 0


@given(timelines())
def test_a_picture_is_well_formed_and_has_a_bar_for_each_attempt(timeline: Timeline) -> None:
    document = ET.fromstring(picture(timeline))
    bars = [rect for rect in document.iter(f"{SVG}rect") if "bar" in rect.get("class", "").split()]
    assert len(bars) == len(timeline.bars)
    for bar in bars:
        left, width = float(bar.get("x", "")), float(bar.get("width", ""))
        assert LEFT - 0.1 <= left <= RIGHT + 0.1
        assert 2.0 <= width <= RIGHT - LEFT + 2.1


def test_a_picture_says_in_words_what_it_shows_and_needs_nothing_from_elsewhere() -> None:
    text = picture(DAY_LONG)
    document = ET.fromstring(text)
    title, description = document.find(f"{SVG}title"), document.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert (document.get("role"), document.get("aria-labelledby")) == (
        "img",
        f"{title.get('id')} {description.get('id')}",
    )
    assert "waiting, 1 d old" in str(title.text)
    assert all(f"{bar.label}: {bar.note}" in str(description.text) for bar in DAY_LONG.bars)
    assert not re.search(r"@import|@font-face|url\(|href|<script|<image", text)
    assert text == picture(DAY_LONG)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_a_picture_can_be_read_on_light_and_dark(colours: dict[str, str]) -> None:
    for name in TEXTS:
        assert contrast(colours[name], colours["paper"]) >= TEXT_CONTRAST, name
    for name in SHAPES:
        assert contrast(colours[name], colours["paper"]) >= SHAPE_CONTRAST, name


def test_a_picture_has_no_class_without_a_colour_in_both() -> None:
    text = picture(DAY_LONG)
    used = {name for classes in re.findall(r'class="([^"]+)"', text) for name in classes.split()} - {"bar", "name"}
    assert used <= LIGHT.keys()
    assert LIGHT.keys() == DARK.keys() == {*TEXTS, *SHAPES, "paper", "tick"}
    light, _, dark = text.partition("@media(prefers-color-scheme:dark)")
    assert all(f".{name}{{" in part for name in used for part in (light, dark))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 ms"),
        (-1, "0 ms"),
        (0.0456, "46 ms"),
        (4.21, "4.2 s"),
        (185, "3 min 5 s"),
        (7_500, "2 h 5 min"),
        (3_600, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_span_is_written_for_people(seconds: float, written: str) -> None:
    assert span(seconds) == written
