"""What the container grants, and how it is shared out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion_worker.isolation import container
from ingestion_worker.isolation.memory import (
    LEAST_CHILD_BYTES,
    MEBIBYTE,
    MOST_CHILD_BYTES,
    RESERVED_BYTES,
    Portions,
    share_out,
)
from isolating import isolation_settings

if TYPE_CHECKING:
    from pathlib import Path

GIBIBYTE = 1 << 30
INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="ascii")
    return root


GROUP = "proc/self/cgroup"
MEMORY = [
    ({}, INSTALLED),
    ({GROUP: "0::/", "sys/fs/cgroup/memory.max": "max"}, INSTALLED),
    ({GROUP: "0::/", "sys/fs/cgroup/memory.max": "67108864"}, 64 * MEBIBYTE),
    (
        {GROUP: "0::/a/b", "sys/fs/cgroup/a/memory.max": "67108864", "sys/fs/cgroup/a/b/memory.max": "max"},
        64 * MEBIBYTE,
    ),
    ({GROUP: "0::/not/seen/here", "sys/fs/cgroup/memory.max": "67108864"}, 64 * MEBIBYTE),
    ({GROUP: "0::/../other", "sys/fs/cgroup/memory.max": "67108864"}, 64 * MEBIBYTE),
    ({GROUP: "4:memory:/x\n0::/", "sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864"}, 64 * MEBIBYTE),
    ({GROUP: "4:cpu,memory:/x", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712"}, INSTALLED),
]


@pytest.mark.parametrize(("files", "expected"), MEMORY)
def test_the_memory_of_a_container(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert container.memory_bytes(machine(tmp_path, files)) == expected


V1_QUOTA = "sys/fs/cgroup/cpu/cpu.cfs_quota_us"
V1_PERIOD = "sys/fs/cgroup/cpu/cpu.cfs_period_us"
MANY = len(os.sched_getaffinity(0))
PROCESSORS = [
    ({}, MANY),
    ({GROUP: "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, MANY),
    ({GROUP: "0::/", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
    ({GROUP: "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    ({GROUP: "2:cpu,cpuacct:/", V1_QUOTA: "100000", V1_PERIOD: "100000"}, 1),
    ({GROUP: "2:cpu,cpuacct:/", V1_QUOTA: "-1", V1_PERIOD: "100000"}, MANY),
]


@pytest.mark.parametrize(("files", "expected"), PROCESSORS)
def test_the_processors_of_a_container(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert container.processors(machine(tmp_path, files)) == expected


def test_here_is_some_memory_and_a_processor() -> None:
    assert 0 < container.memory_bytes() <= INSTALLED
    assert 1 <= container.processors() <= MANY


def test_the_container_of_the_runbook_reads_two_at_once() -> None:
    assert share_out(512 * MEBIBYTE, at_most=2, slots=None, child_bytes=None) == Portions(2, 168 * MEBIBYTE)
    assert share_out(GIBIBYTE, at_most=2, slots=None, child_bytes=None) == Portions(2, 424 * MEBIBYTE)


@given(st.integers(0, 64 * GIBIBYTE), st.integers(1, 256))
def test_portions_fit_and_are_of_use(limit: int, at_most: int) -> None:
    portions = share_out(limit, at_most=at_most, slots=None, child_bytes=None)
    assert 1 <= portions.slots <= at_most
    assert LEAST_CHILD_BYTES <= portions.child_bytes <= MOST_CHILD_BYTES
    if limit >= RESERVED_BYTES + LEAST_CHILD_BYTES:
        assert portions.slots * portions.child_bytes + RESERVED_BYTES <= limit


@given(st.integers(0, 64 * GIBIBYTE), st.integers(1, 256), st.integers(1, 8 * GIBIBYTE))
def test_what_is_given_is_kept(limit: int, slots: int, child_bytes: int) -> None:
    both = share_out(limit, at_most=4, slots=slots, child_bytes=child_bytes)
    assert both == Portions(slots, child_bytes)
    assert share_out(limit, at_most=4, slots=slots, child_bytes=None).slots == slots
    assert share_out(limit, at_most=4, slots=None, child_bytes=child_bytes).child_bytes == child_bytes


def test_portions_that_do_not_fit_earn_a_warning(tmp_path: Path) -> None:
    settings = isolation_settings(tmp_path, document_slots=200, document_memory_bytes=INSTALLED // 100)
    assert any("do not fit into" in warning for warning in settings.warnings())
    calm = isolation_settings(tmp_path, document_slots=1, document_memory_bytes=LEAST_CHILD_BYTES)
    assert not any("DOCUMENT_" in warning for warning in calm.warnings())
    small = isolation_settings(tmp_path, document_memory_bytes=LEAST_CHILD_BYTES - 1)
    assert any("too little for many documents" in warning for warning in small.warnings())
