"""Whoever dies - a job, its worker, the fork server - takes along what it started, and the rest goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

import isolation_owner
from ingestion_worker.isolation import linux, server
from ingestion_worker.isolation.folders import FolderUnusable, opened_folders
from ingestion_worker.isolation.isolation import opened_isolation
from isolating import (
    HERE,
    become_true,
    end_of,
    folders_in,
    hostile_isolation,
    isolation_settings,
    processes_in,
    result_of,
    server_pid,
)
from worker_runtime.document_metrics import IsolationMetrics
from worker_runtime.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ingestion_worker.isolation.isolation import Isolation


@pytest.fixture
async def isolation(tmp_path: Path) -> AsyncIterator[Isolation]:
    async with hostile_isolation(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("task", ["hang", "leave_children", "spin"])
async def test_a_cancelled_job_is_gone_when_it_says_so(isolation: Isolation, tmp_path: Path, task: str) -> None:
    job = asyncio.create_task(end_of(isolation, task, end="never"))
    await become_true(lambda: len(processes_in(tmp_path)) >= (5 if task == "leave_children" else 1))
    began = time.monotonic()
    job.cancel()
    await asyncio.wait({job})
    assert job.cancelled()
    assert processes_in(tmp_path) == []
    assert time.monotonic() - began < 2


async def test_a_job_cancelled_again_and_again_still_leaves_nothing(isolation: Isolation, tmp_path: Path) -> None:
    job = asyncio.create_task(end_of(isolation, "hang"))
    await become_true(lambda: bool(processes_in(tmp_path)))
    fork_server = await server_pid(isolation)
    os.kill(fork_server, signal.SIGSTOP)
    for _ in range(20):
        job.cancel()
        await asyncio.sleep(0)  # The job's turn.
    assert not job.done(), "the fork server cannot have killed it yet"
    os.kill(fork_server, signal.SIGCONT)
    await asyncio.wait({job})
    assert job.cancelled()
    assert processes_in(tmp_path) == []


async def test_jobs_cancelled_at_any_moment_leave_their_slots(isolation: Isolation, tmp_path: Path) -> None:
    for turns in range(60):
        jobs = [asyncio.create_task(end_of(isolation, "wait", seconds=10)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0.0002)  # Any moment is meant.
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
    assert await asyncio.gather(*(end_of(isolation, "succeed") for _ in range(4))) == ["ok"] * 4
    assert processes_in(tmp_path) == []


async def test_a_killed_worker_takes_everything_along(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, isolation_owner.__file__, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"working\n"
    await become_true(lambda: len(processes_in(tmp_path)) >= 7)
    owner.kill()
    await owner.wait()
    await become_true(lambda: processes_in(tmp_path) == [], within=10)
    assert len(folders_in(tmp_path)) == 1
    async with hostile_isolation(tmp_path) as isolation:
        assert len(folders_in(tmp_path)) == 1, "the next one removes what the dead one left"
        assert await end_of(isolation, "succeed") == "ok"


async def test_a_worker_and_its_fork_server_killed_at_once_take_the_tasks_along(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, isolation_owner.__file__, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    await become_true(lambda: len(processes_in(tmp_path)) >= 7)
    (fork_server,) = linux.children_of(owner.pid)
    leaders = linux.children_of(fork_server)
    os.kill(owner.pid, signal.SIGSTOP)
    os.kill(fork_server, signal.SIGKILL)
    owner.kill()
    await owner.wait()
    try:
        await become_true(lambda: not set(leaders) & set(processes_in(tmp_path)))
    finally:
        for orphan in processes_in(tmp_path):
            os.kill(orphan, signal.SIGKILL)  # Nobody is left who could: where that happens, the container ends.


async def test_a_worker_that_is_alive_keeps_its_folders(tmp_path: Path) -> None:
    async with hostile_isolation(tmp_path) as one, one.working_folder() as folder:
        async with opened_isolation(isolation_settings(tmp_path)):
            assert folder.exists()
        assert folder.exists()


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGKILL, "OOM"), (signal.SIGSEGV, "CRASH"), (signal.SIGTERM, "CRASH")]
)
async def test_a_dead_fork_server_is_replaced_within_a_second(tmp_path: Path, number: signal.Signals, end: str) -> None:
    registry = CollectorRegistry()
    async with hostile_isolation(tmp_path, IsolationMetrics(registry)) as isolation:
        first = await server_pid(isolation)
        jobs = [asyncio.create_task(end_of(isolation, task, end="never")) for task in ("hang", "leave_children")]
        await become_true(lambda: len(processes_in(tmp_path)) >= 6)
        began = time.monotonic()
        os.kill(first, number)
        ends = await asyncio.gather(*jobs)
        assert processes_in(tmp_path) == []
        assert [found.partition(":")[0] for found in ends] == [end] * 2
        assert await end_of(isolation, "succeed") == "ok"
        assert time.monotonic() - began < 5, "usually 0.4 s"
        assert await server_pid(isolation) != first
        assert registry.get_sample_value("intelliflow_isolation_server_restarts_total") == 1


async def test_a_fork_server_that_hangs_is_replaced(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BURIAL_SECONDS", 0.2)
    first = await server_pid(isolation)
    job = asyncio.create_task(end_of(isolation, "leave_children", seconds=1, end="never"))
    await become_true(lambda: len(processes_in(tmp_path)) >= 5)
    os.kill(first, signal.SIGSTOP)
    assert await job == "TIMEOUT: it was not done after 1 s"
    assert processes_in(tmp_path) == []
    assert await end_of(isolation, "succeed") == "ok"


async def test_a_worker_may_close_while_its_fork_server_is_being_replaced(tmp_path: Path) -> None:
    for turns in range(0, 400, 100):
        async with hostile_isolation(tmp_path) as isolation:
            first = await server_pid(isolation)
            os.kill(first, signal.SIGKILL)
            for _ in range(turns):
                await asyncio.sleep(0.001)  # Any moment is meant.
        assert not [pid for pid in linux.descendants_of(os.getpid()) if b"forkserver" in command_of(pid)]


def command_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


async def test_a_module_that_starts_a_thread_is_refused(tmp_path: Path) -> None:
    tasks = {"task": "starts_a_thread:task"}
    with pytest.raises(server.ServerStart, match="starts_a_thread starts a thread when it is imported"):
        async with opened_isolation(isolation_settings(tmp_path), tasks=tasks, import_from=[HERE]):
            pass


async def test_folders_that_others_may_use_are_refused(tmp_path: Path) -> None:
    shared = tmp_path / f"intelliflow-documents-{os.geteuid()}"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    with pytest.raises(SettingsError, match=r"DOCUMENT_WORK_DIR.*others may use it too: remove it"):
        async with hostile_isolation(tmp_path):
            pass
    shared.rmdir()
    shared.symlink_to(tmp_path)
    with pytest.raises(FolderUnusable, match="others may use it"), opened_folders(tmp_path):
        pass


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"DOCUMENT_WORK_DIR.*Not a directory"):
        async with opened_isolation(isolation_settings(tmp_path / "file")):
            pass


async def test_a_sandbox_that_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="DOCUMENT_SANDBOX=bubblewrap: bwrap is not on the PATH: install it"):
        async with opened_isolation(isolation_settings(tmp_path, document_sandbox="bubblewrap")):
            pass


async def test_a_sandbox_that_the_kernel_refuses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bubblewrap = tmp_path / "bwrap"
    bubblewrap.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    bubblewrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SettingsError, match=r"it was refused .bwrap: No permissions.*DOCUMENT_SANDBOX=none"):
        async with opened_isolation(isolation_settings(tmp_path, document_sandbox="bubblewrap")):
            pass
    assert folders_in(tmp_path) == []


@pytest.mark.needs("bwrap")
async def test_a_sandbox_has_no_network_no_other_processes_and_one_place_to_write(tmp_path: Path) -> None:
    async with hostile_isolation(tmp_path, document_sandbox="bubblewrap") as isolation:
        found = await result_of(isolation, "look_out_of_the_sandbox", outside=str(tmp_path / "outside"))
        assert found == {"interfaces": ["lo"], "processes": 3, "written": False}
        for task, end in (("hang", "TIMEOUT"), ("hoard", "OOM"), ("leave_children", "TIMEOUT"), ("succeed", "ok")):
            assert (await end_of(isolation, task, seconds=1, end="never")).startswith(end)
            assert processes_in(tmp_path) == []
        first = await server_pid(isolation)
        job = asyncio.create_task(end_of(isolation, "hang"))
        await become_true(lambda: bool(processes_in(tmp_path)))
        os.kill(first, signal.SIGKILL)
        assert (await job).startswith("OOM")
        assert await end_of(isolation, "succeed") == "ok"
