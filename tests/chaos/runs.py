"""The history read as runs of handlers and times of trouble: what the verdict is made from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.history import Entry

FOR_EVER = 10**12
ENDS = ("done", "failed", "put off", "aborted")
# What a server that went away may have forgotten is what it was told this long before, in seconds.
FORGETFUL_SECONDS = 3.0


@dataclass(slots=True)
class Run:
    """One handler at one event in one process; places are those of entries in the history."""

    event: str
    aggregate: str
    version: int
    handler: str
    pid: int
    begun: int
    begun_at: float
    effects: list[int] = field(default_factory=list)
    ended: int = FOR_EVER
    how: str = "never ended"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong from one moment to another, in seconds. `pid` is 0 where it concerned all workers.

    `event` is what alone it concerned, an organisation's name for a reset.
    """

    kind: str
    since: float
    until: float
    pid: int = 0
    event: str = ""


def runs_of(history: Sequence[Entry]) -> list[Run]:
    """Return the runs in the order in which they began; the end of a process ends what ran in it."""
    runs: dict[str, Run] = {}
    at_work: dict[int, set[str]] = defaultdict(set)
    for place, entry in enumerate(history):
        if entry.what == "begun":
            names = (entry.event, entry.aggregate, entry.version, entry.handler)
            runs[entry.run] = Run(*names, entry.pid, place, entry.at)
            at_work[entry.pid].add(entry.run)
        elif entry.what == "effect":
            runs[entry.run].effects.append(place)
        elif entry.what in ENDS:
            runs[entry.run].ended, runs[entry.run].how = place, entry.what
            at_work[entry.pid].discard(entry.run)
        elif entry.what in ("killed", "stopped"):
            for name in at_work.pop(entry.pid, set()):
                runs[name].ended, runs[name].how = place, entry.what
    return list(runs.values())


def troubles_of(history: Iterable[Entry]) -> list[Trouble]:
    """Return what went wrong, each with its end."""
    found: list[Trouble] = []
    open_ones: dict[tuple[str, int], float] = {}
    for entry in history:
        match entry.what:
            case "killed" | "cut off" | "deposed" | "forgot" | "stopped":
                pid = entry.pid if entry.what in ("killed", "stopped") else 0
                found.append(Trouble(entry.what, entry.at, entry.at, pid, entry.event))
            case "reset":
                found.append(Trouble(entry.what, entry.at, entry.at, 0, entry.aggregate))
            case "frozen":
                open_ones["frozen", entry.pid] = entry.at
            case "thawed":
                found.append(Trouble("frozen", open_ones.pop(("frozen", entry.pid)), entry.at, entry.pid))
            case "gone":
                open_ones[entry.note.split()[0], 0] = entry.at
            case "back":
                found.append(Trouble(entry.note, open_ones.pop((entry.note, 0)), entry.at))
            case _:
                pass
    return found
