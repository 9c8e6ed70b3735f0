"""A timeline for a terminal: a line for each bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.output import harmless
from worker_ops.workflow.timeline import Axis, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_ops.workflow.timeline import Bar, Timeline

WIDTH = 48
LONGEST_LABEL = 36
FILL = {"queued": ".", "running": ">", "completed": "=", "failed": "x", "waited": "-", "waiting": "-"}
UNTIL_NEXT = "~"
SHORTENED = "/"


def drawn(timeline: Timeline, width: int = WIDTH) -> str:
    """Draw it, in characters that every terminal has; `width` is of the bars."""
    return "".join(f"{harmless(line.rstrip())}\n" for line in _lines(timeline, width))


def _lines(timeline: Timeline, width: int) -> Iterator[str]:
    axis = Axis(timeline)
    column = min(LONGEST_LABEL, max((len(bar.label) for bar in timeline.bars), default=0))
    end = span(timeline.seconds)
    yield f"{'':{column}}  |0{end:>{width - 1}}|  {timeline.summary}"
    for bar in timeline.bars:
        yield f"{_short(bar.label, column):{column}}  |{_bar(bar, axis, width)}|  {bar.note}"
    marks = [" "] * width
    for (begin, until), _ in axis.shortened:
        marks[_cell((axis.place(begin) + axis.place(until)) / 2, width)] = SHORTENED
    if axis.shortened:
        yield f"{'':{column}}  |{''.join(marks)}|  {SHORTENED} shortened: nobody was at work"


def _bar(bar: Bar, axis: Axis, width: int) -> str:
    first, last = _cell(axis.place(bar.begins), width), _cell(axis.place(bar.ends), width)
    cells = [" "] * width
    if bar.next_at is not None:
        cells[last : _cell(axis.place(bar.next_at), width) + 1] = UNTIL_NEXT * (
            _cell(axis.place(bar.next_at), width) + 1 - last
        )
    cells[first : last + 1] = FILL[bar.state] * (last + 1 - first)
    return "".join(cells)


def _cell(place: float, width: int) -> int:
    return min(width - 1, int(place * width))


def _short(label: str, column: int) -> str:
    return label if len(label) <= column else f"{label[: column - 3]}..."
