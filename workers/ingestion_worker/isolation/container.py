"""What this process may use of the machine, as the container says it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["memory_bytes", "processors"]

ROOT = Path("/")
# Version 1 writes "no limit" as a number near 2^63.
NO_LIMIT = 1 << 60


def memory_bytes(root: Path = ROOT) -> int:
    """Return the smallest of the limits of this process' control groups (both versions) and the machine's memory."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for text in _settings(root, "memory", "memory.max", "memory.limit_in_bytes") if text != "max"]
    return min([installed, *(limit for limit in limits if 0 < limit < NO_LIMIT)])


def processors(root: Path = ROOT) -> int:
    """Return how many processors this process may keep busy: of those it may run on, what its control groups grant."""
    granted = [_share(text) for text in _settings(root, "cpu", "cpu.max", "cpu.cfs_quota_us")]
    return max(1, min([len(os.sched_getaffinity(0)), *(share for share in granted if share is not None)]))


def _settings(root: Path, controller: str, unified: str, separate: str) -> Iterator[str]:
    """Yield a setting of this process' group, of the group around that, and so on; of whichever version there is."""
    mounted = root / "sys/fs/cgroup"
    for base, group, name in _groups(root, controller, unified, separate, mounted):
        for folder in (group, *group.parents):
            with suppress(OSError):
                yield _read(base / folder.relative_to("/") / name)


def _groups(
    root: Path, controller: str, unified: str, separate: str, mounted: Path
) -> Iterator[tuple[Path, Path, str]]:
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            number, names, group = line.split(":", 2)
            if number == "0":
                yield mounted, Path(group), unified
            elif controller in names.split(","):
                yield mounted / controller, Path(group), separate


def _read(setting: Path) -> str:
    text = setting.read_text(encoding="ascii").strip()
    if setting.name == "cpu.cfs_quota_us":
        return f"{text} {_read(setting.with_name('cpu.cfs_period_us'))}"
    return text


def _share(text: str) -> int | None:
    """Return how many processors `quota period` amounts to, rounded up; `None`: no limit."""
    quota, period = text.split()
    if quota in {"max", "-1"}:
        return None
    return math.ceil(int(quota) / int(period))
