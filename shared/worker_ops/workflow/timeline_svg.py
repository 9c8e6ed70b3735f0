"""A timeline as a picture: SVG that stands alone, reads well on light and dark, and says in words what it shows."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from worker_ops.workflow.timeline import Axis, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from worker_ops.workflow.timeline import Bar, Timeline

WIDTH, LEFT, RIGHT = 1200, 260, 780
TOP, ROW, BAR, BOTTOM = 72, 28, 16, 40
MOST_LABEL, MOST_NOTE = 34, 58
NARROWEST = 2.0
TICKS = 4
LABEL_ROOM = 130.0
# What XML 1.0 has no way to write.
UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
STROKED = ("gap", "tick")
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "faint": "#59636e",
    "gap": "#59636e",
    "tick": "#d1d9e0",
    "completed": "#1a7f37",
    "failed": "#cf222e",
    "running": "#0969da",
    "waiting": "#9a6700",
    "waited": "#818b98",
    "queued": "#818b98",
}
DARK = {
    "paper": "#0d1117",
    "ink": "#f0f6fc",
    "faint": "#9198a1",
    "gap": "#9198a1",
    "tick": "#3d444d",
    "completed": "#3fb950",
    "failed": "#f85149",
    "running": "#4493f8",
    "waiting": "#d29922",
    "waited": "#7d8590",
    "queued": "#7d8590",
}


def picture(timeline: Timeline) -> str:
    """Return the SVG document."""
    return "\n".join(_document(timeline)) + "\n"


def _document(timeline: Timeline) -> Iterator[str]:
    axis = Axis(timeline)
    height = TOP + ROW * len(timeline.bars) + BOTTOM
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-labelledby="title description">'
    )
    yield f'<title id="title">{_text(timeline.name)}: {_text(timeline.summary)}</title>'
    told = "; ".join(f"{bar.label}: {bar.note}" for bar in timeline.bars)
    yield f'<desc id="description">{_text(told)}</desc>'
    yield f"<style>{_style()}</style>"
    yield f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
    yield f'<text class="name ink" x="16" y="26">{_text(timeline.name)}</text>'
    yield f'<text class="faint" x="16" y="46">{_text(timeline.summary)}</text>'
    yield from _ticks(timeline, axis, height)
    for number, bar in enumerate(timeline.bars):
        yield from _row(bar, axis, TOP + ROW * number)
    yield "</svg>"


def _style() -> str:
    """Return rules that renderers without variables or media queries understand, too: those draw it in light."""
    plain = "text{font-family:system-ui,sans-serif;font-size:13px}.name{font-weight:600}.gap{stroke-dasharray:2 3}"
    return f"{plain}{_coloured(LIGHT)}@media(prefers-color-scheme:dark){{{_coloured(DARK)}}}"


def _coloured(colours: Mapping[str, str]) -> str:
    return "".join(f".{name}{{{'stroke' if name in STROKED else 'fill'}:{colour}}}" for name, colour in colours.items())


def _ticks(timeline: Timeline, axis: Axis, height: int) -> Iterator[str]:
    """Mark where bars begin or end, as many as have room, with the time since the start."""
    bottom = height - BOTTOM
    for place, moment in _marked(timeline, axis):
        x = LEFT + place * (RIGHT - LEFT)
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{bottom}"/>'
        label = span((moment - timeline.begins).total_seconds()) if moment != timeline.begins else "0"
        yield f'<text class="faint" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>'
    yield from _shortened(axis)


def _shortened(axis: Axis) -> Iterator[str]:
    """Say how long the stretches are that were shortened, where there is room for it."""
    last = 0.0
    for (begin, end), seconds in axis.shortened:
        x = LEFT + (axis.place(begin) + axis.place(end)) / 2 * (RIGHT - LEFT)
        if x - last >= LABEL_ROOM:
            last = x
            yield f'<text class="faint" x="{x:.1f}" y="{TOP - 8}" text-anchor="middle">// {span(seconds)} //</text>'


def _marked(timeline: Timeline, axis: Axis) -> Iterator[tuple[float, datetime]]:
    moments = sorted({timeline.begins, timeline.ends, *(bar.begins for bar in timeline.bars)})
    last = -1.0
    for moment in moments:
        place = axis.place(moment)
        far_from_end = moment == timeline.ends or 1.0 - place >= 0.5 / TICKS
        if place - last >= 0.5 / TICKS and far_from_end:
            last = place
            yield place, moment


def _row(bar: Bar, axis: Axis, top: int) -> Iterator[str]:
    first, last = (LEFT + axis.place(moment) * (RIGHT - LEFT) for moment in (bar.begins, bar.ends))
    baseline, middle = top + BAR - 3, top + BAR / 2
    yield f"<g><title>{_text(bar.label)}: {_text(bar.note)}</title>"
    yield f'<text class="ink" x="{LEFT - 12}" y="{baseline}" text-anchor="end">{_short(bar.label, MOST_LABEL)}</text>'
    if bar.next_at is not None:
        until = LEFT + axis.place(bar.next_at) * (RIGHT - LEFT)
        yield f'<line class="gap" x1="{last:.1f}" x2="{until:.1f}" y1="{middle}" y2="{middle}"/>'
    width = max(NARROWEST, last - first)
    # A wait is thin: that it is no work is seen without colours.
    high = BAR / 4 if bar.state in {"waited", "waiting", "queued"} else BAR
    yield (
        f'<rect class="bar {bar.state}" x="{first:.1f}" y="{middle - high / 2}" width="{width:.1f}" height="{high}"'
        ' rx="2"/>'
    )
    yield f'<text class="ink" x="{RIGHT + 16}" y="{baseline}">{_short(bar.note, MOST_NOTE)}</text></g>'


def _short(text: str, most: int) -> str:
    return _text(text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}")


def _text(text: str) -> str:
    return escape(UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text))
