"""Whatever a document does to the process that reads it has a typed end, and the next one is read as if nothing was."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from ingestion_worker.problem import DocumentError, Problem
from isolating import MEBIBYTE, documents_in, end_of, hostile_isolation, processes_in, result_of, server_pid
from worker_runtime.document_metrics import IsolationMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ingestion_worker.isolation.isolation import Isolation

SECRET = "SECRET"


@pytest.fixture
async def isolation(tmp_path: Path) -> AsyncIterator[Isolation]:
    async with hostile_isolation(tmp_path) as opened:
        yield opened


MEMORY = "OOM: it takes more memory than 192 MiB"
LOST_FOR_WORDS = "CRASH: the process that read it wrote garbage"

ENDS: list[tuple[str, dict[str, Any], str]] = [
    ("succeed", {}, "ok"),
    ("report", {"total": 100_000}, "ok"),
    ("be_deaf_to_the_end", {}, "ok"),
    ("compute", {}, "TIMEOUT: it was not done after 30 s of computing"),
    ("hoard", {}, MEMORY),
    ("ask_for_too_much", {}, MEMORY),
    ("hide_the_want_of_memory", {}, MEMORY),
    ("hoard_and_abort", {}, MEMORY),
    ("share_memory", {}, MEMORY),
    ("breed_hoarders", {}, MEMORY),
    ("flee", {}, MEMORY),
    ("breed", {}, MEMORY),
    ("be_killed", {}, MEMORY),
    ("abort", {}, "CRASH: the process that read it was ended by SIGABRT"),
    ("segfault", {}, "CRASH: the process that read it was ended by SIGSEGV"),
    ("write_forever", {}, "TOO_LARGE: a file made of it is larger than 4 MiB"),
    ("write_forever_natively", {}, "TOO_LARGE: a file made of it is larger than 4 MiB"),
    ("forbid_its_folder", {}, "ok"),
    ("leave_children", {"end": "well"}, "ok"),
    ("flood", {}, LOST_FOR_WORDS),
    ("write_garbage", {"hex": "ffffffff"}, LOST_FOR_WORDS),
    ("write_garbage", {"hex": "00000002" + b"[]".hex()}, LOST_FOR_WORDS),
    ("write_garbage", {"hex": "00000002" + b"{]".hex()}, LOST_FOR_WORDS),
    ("write_garbage", {"hex": "00000004" + b"\xff\xfe\x00\x00".hex()}, LOST_FOR_WORDS),
    ("write_garbage", {"hex": "00000013" + b'{"progress":[2, 1]}'.hex()}, LOST_FOR_WORDS),
    ("write_garbage", {"hex": "0000000a" + b'{"done":1}'.hex(), "stay": False}, LOST_FOR_WORDS),
    (
        "write_garbage",
        {"hex": "00000100", "stay": False},
        "CRASH: the process that read it ended without a result (exit 0)",
    ),
    ("go_silently", {"code": 0}, "CRASH: the process that read it ended without a result (exit 0)"),
    ("go_silently", {"code": 3}, "CRASH: the process that read it ended without a result (exit 3)"),
    ("return_too_much", {}, "CRASH: reading it ended in ValueError"),
    ("return_what_is_no_json", {}, "CRASH: reading it ended in TypeError"),
    ("without a module", {}, "CRASH: no_such_module:task cannot be loaded (ModuleNotFoundError)"),
    ("without a function", {}, "CRASH: hostile_tasks:no_such_task cannot be loaded (AttributeError)"),
    ("with a broken module", {}, "CRASH: broken_task:task cannot be loaded (RuntimeError)"),
    ("fail", {"exception": "DocumentError"}, "ENCRYPTED: it needs a password"),
    ("fail", {"exception": "ValueError"}, "CRASH: reading it ended in ValueError"),
    ("fail", {"exception": "MemoryError"}, MEMORY),
    ("fail", {"exception": "RecursionError"}, "CRASH: reading it ended in RecursionError"),
    ("fail", {"exception": "SystemExit"}, "CRASH: reading it ended in SystemExit"),
    ("fail", {"exception": "KeyboardInterrupt"}, "CRASH: reading it ended in KeyboardInterrupt"),
    ("fail", {"exception": "GeneratorExit"}, "CRASH: reading it ended in GeneratorExit"),
    ("fail", {"exception": "EFBIG"}, "TOO_LARGE: a file made of it is larger than 4 MiB"),
    ("fail", {"exception": "ENOSPC"}, "CRASH: no space is left where documents are worked on"),
]


async def test_every_end_has_a_name_and_leaves_nothing(isolation: Isolation, tmp_path: Path) -> None:
    server, ends = await server_pid(isolation), []
    for task, order, _ in ENDS:
        ends.append((task, order, await end_of(isolation, task, **order)))
        assert processes_in(tmp_path) == [], task
        assert documents_in(tmp_path) == [], task
    assert ends == ENDS
    assert await server_pid(isolation) == server


@pytest.mark.parametrize("task", ["hang", "hold_the_interpreter", "spin", "leave_children"])
async def test_a_task_without_end_is_killed_in_time_and_the_next_runs_at_once(
    isolation: Isolation, tmp_path: Path, task: str
) -> None:
    began = time.monotonic()
    assert await end_of(isolation, task, seconds=1, end="never") == "TIMEOUT: it was not done after 1 s"
    killed = time.monotonic()
    assert await end_of(isolation, "succeed") == "ok"
    assert killed - began < 5
    assert time.monotonic() - killed < 1
    assert processes_in(tmp_path) == []


async def test_what_a_task_finds_where_it_runs(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with isolation.working_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        found = await isolation.run("look_around", {}, folder)
        assert (folder / "made.txt").stat().st_mode & 0o777 == 0o600
    assert not folder.exists()
    assert found["cwd"] == found["environment"]["TMPDIR"] == str(folder)
    assert found["descriptors"] == [0, 1, 2, 3]
    assert set(found["streams"]) == {os.devnull}
    assert found["leader"]
    assert found["limits"] | {"RLIMIT_AS": None} == {
        "RLIMIT_AS": None,
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_CPU": [60, 61],
        "RLIMIT_DATA": [192 * MEBIBYTE, 200 * MEBIBYTE],
        "RLIMIT_FSIZE": [4 * MEBIBYTE, 4 * MEBIBYTE],
        "RLIMIT_NOFILE": [256, 256],
    }
    assert 1024 * MEBIBYTE < found["limits"]["RLIMIT_AS"][0] < 2048 * MEBIBYTE
    assert found["oom"] == "1000"
    assert found["threads"] == 1
    status = dict(line.split(":\t", 1) for line in found["status"].splitlines() if ":\t" in line)
    assert int(status["NoNewPrivs"]) == 1
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert int(status["SigBlk"], 16) == 0
    assert found["parent"] == await server_pid(isolation)
    assert (await result_of(isolation, "look_around"))["random"] != found["random"]


async def test_children_get_no_secret_and_cannot_look_one_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", SECRET)
    monkeypatch.setenv("TESSDATA_PREFIX", "/data")
    async with hostile_isolation(tmp_path) as isolation:
        environment = (await result_of(isolation, "look_around"))["environment"]
        looked_up = await result_of(isolation, "read_the_workers_environment", worker=os.getpid())
    assert SECRET not in environment.values()
    assert environment["TESSDATA_PREFIX"] == "/data"
    assert environment["OMP_THREAD_LIMIT"] == "1"
    assert looked_up == {"refused": "Permission denied"}


async def test_no_limit_can_be_lifted(isolation: Isolation) -> None:
    assert await result_of(isolation, "try_to_lift_limits") == {"lifted": []}


async def test_slots_are_as_many_as_run_at_once_and_waiting_for_one_costs_no_time(isolation: Isolation) -> None:
    began = time.monotonic()
    ends = await asyncio.gather(*(waits(isolation, 0.6) for _ in range(6)))
    assert ends == ["ok"] * 6
    assert time.monotonic() - began >= 3 * 0.6


async def waits(isolation: Isolation, seconds: float) -> str:
    async with isolation.working_folder() as folder:
        try:
            await isolation.run("wait", {"seconds": seconds}, folder, seconds=1.7)
        except DocumentError as error:
            return str(error)
    return "ok"


async def test_progress_arrives_now_and_then(isolation: Isolation) -> None:
    async def heard(**order: Any) -> list[tuple[int, int]]:
        progress: list[tuple[int, int]] = []
        async with isolation.working_folder() as folder:
            await isolation.run("report", order, folder, on_progress=lambda *told: progress.append(told))
        return progress

    assert await heard(total=3, slowly=True) == [(1, 3), (2, 3), (3, 3)]
    assert len(await heard(total=100_000)) < 1000


async def test_the_work_of_others_goes_on_while_orphans_are_killed(isolation: Isolation) -> None:
    longer = asyncio.create_task(waits(isolation, 1.0))
    while not longer.done():
        assert await end_of(isolation, "leave_children", end="well") == "ok"
    assert longer.result() == "ok"


async def test_the_workers_memory_is_flat(isolation: Isolation) -> None:
    async def run(times: int) -> None:
        for _ in range(times):
            for task in ("succeed", "abort", "flood", "go_silently", "segfault", "return_too_much", "fail", "report"):
                await end_of(isolation, task, code=1, exception="ValueError", total=1000)

    await run(5)
    before, open_before = resident_kilobytes(), descriptors()
    await run(25)
    assert resident_kilobytes() - before < 8 * MEBIBYTE / 1024
    assert descriptors() == open_before


def resident_kilobytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def test_the_event_loop_goes_on_beside_busy_tasks(tmp_path: Path) -> None:
    async with hostile_isolation(tmp_path, document_slots=4) as isolation:
        busy = asyncio.gather(
            *(end_of(isolation, task, seconds=2) for task in ("spin", "flood", "hoard", "spin", "leave_children"))
        )
        late = []
        while not busy.done():
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)  # What is measured.
            late.append(time.monotonic() - due)
        assert sorted(late)[len(late) * 99 // 100] < 0.25
        assert set(await busy) <= {
            "TIMEOUT: it was not done after 2 s",
            LOST_FOR_WORDS,
            MEMORY,
            "CRASH: reading it ended in KeyError",
        }


async def test_what_is_counted(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = IsolationMetrics(registry)

    def count(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"intelliflow_isolation_{name}", labels)

    async with hostile_isolation(tmp_path, metrics) as isolation:
        assert count("tasks_total", task="succeed", outcome="ok") == 0
        await end_of(isolation, "succeed")
        await end_of(isolation, "hang", seconds=0.2)
        with pytest.raises(DocumentError) as caught:
            await result_of(isolation, "hoard")
        assert caught.value.problem is Problem.OOM
        assert count("tasks_total", task="succeed", outcome="ok") == 1
        assert count("tasks_total", task="hang", outcome="TIMEOUT") == 1
        assert count("tasks_total", task="hoard", outcome="OOM") == 1
        assert count("kills_total") == 1
        assert count("children") == 0
        assert count("slot_wait_seconds_count") == 3
        hoarded = count("peak_bytes_sum", task="hoard")
        assert hoarded is not None
        assert 0.5 * 192 * MEBIBYTE < hoarded < 1.5 * 192 * MEBIBYTE
