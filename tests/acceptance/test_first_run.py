"""`./dev run` as the process a stranger starts, in a folder of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded_stack.place import claimed_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_RUN = [sys.executable, "-m", "embedded_stack.first_run"]
SECONDS = 150.0

pytestmark = pytest.mark.timeout(400)
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a checkout").mkdir()
    return tmp_path / "a checkout"


@contextmanager
def started(folder: Path, *options: str, errors: str = "stderr") -> Iterator[subprocess.Popen[str]]:
    with (
        (folder / errors).open("w") as stderr,
        subprocess.Popen([*FIRST_RUN, *options], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=stderr) as run,
    ):
        try:
            yield run
        finally:
            run.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(folder: Path, words: str) -> Callable[[], bool]:
    return lambda: words in (folder / "stderr").read_text()


def processes_of(folder: Path) -> list[str]:
    """The command lines and folders of every process that works in `folder`, ourselves apart."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_text().replace("\0", " ")
            if str(folder) in f"{words} {(entry / 'cwd').readlink()}":
                found.append(words)
    return found


def test_every_event_is_accounted_for_and_nothing_is_left_behind(folder: Path) -> None:
    with started(folder, "--json") as run:
        output, _ = run.communicate(timeout=SECONDS)

    *shown, last = output.splitlines()
    result = json.loads(last)
    assert run.returncode == 0, (folder / "stderr").read_text()
    assert (result["ok"], result["events"], result["emails"]) == (True, 22, 18)
    assert (result["sms"], result["webhooks"], result["documents"]) == (1, 1, 3)
    assert result["elapsedMs"] > 0
    (sms,) = [line for line in shown if line.startswith("SMS ")]
    assert "PROVIDER_UNAVAILABLE" in sms
    assert "the receiver found the signature right" in output
    assert sum(line.startswith("lead.") for line in shown) == 20
    # Two of them come from workflows.
    assert len(list((folder / ".data" / "mails").glob("*.eml"))) == 20
    assert processes_of(folder) == []


def test_runs_of_one_checkout_started_together_do_not_disturb_each_other(folder: Path) -> None:
    with ExitStack() as opened:
        runs = [opened.enter_context(started(folder, "--json", errors=f"stderr {number}")) for number in range(3)]
        results = [json.loads(run.communicate(timeout=SECONDS)[0].splitlines()[-1]) for run in runs]

    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [(result["ok"], result["events"], result["emails"]) for result in results] == [(True, 22, 18)] * 3
    data = folder / ".data"
    for place in (data, data / "beside-1", data / "beside-2"):
        assert len(list((place / "mails").glob("*.eml"))) == 20
    assert processes_of(folder) == []


def test_serving_hands_the_shell_what_it_needs_and_ends_well(folder: Path) -> None:
    with started(folder, "--serve") as run:
        until(said(folder, "Everything stays up"))
        lines = (folder / ".data" / "environment").read_text().splitlines()
        stack = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        shell = {**os.environ, **stack, "PATH": f"{folder}/.data/bin:{os.environ['PATH']}"}

        asked = [
            ["redis-cli", "LLEN", "intelliflow:events:wait"],
            ["psql", "-Atc", "SELECT count(*) FROM domain_event_outbox"],
        ]
        answers = [
            subprocess.run(words, env=shell, capture_output=True, text=True, check=True).stdout for words in asked
        ]
        fallback = [sys.executable, "-m", "embedded_stack.redis_cli", "ZCARD", "intelliflow:events:completed"]
        completed = subprocess.run(fallback, env=shell, capture_output=True, text=True, check=True)

        run.send_signal(signal.SIGINT)
        assert run.wait(SECONDS) == 0

    assert answers == ["0\n", "22\n"]
    assert (completed.stdout, completed.stderr) == ("22\n", "")
    assert not (folder / ".data" / "environment").exists()
    assert processes_of(folder) == []


@pytest.mark.parametrize("number", STOPPED)
def test_told_to_stop_early_it_stops_everything(folder: Path, number: signal.Signals) -> None:
    with started(folder) as run:
        until(said(folder, "mail server"))
        run.send_signal(number)
        assert run.wait(SECONDS) == STOPPED[number]

    # What was only just being started is ended by the kernel, a moment later.
    until(lambda: not processes_of(folder))


def test_killed_it_leaves_nothing_behind_and_can_be_started_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with started(folder) as run:
        until(said(folder, "notifications-worker:"))
        run.kill()
        run.wait()
    until(lambda: not processes_of(folder))
    assert list((tmp_path / "temporary").iterdir()) == []

    with started(folder, "--json") as again:
        output, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, (folder / "stderr").read_text()
    assert json.loads(output.splitlines()[-1])["emails"] == 18


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another run"])
def test_a_worker_that_does_not_start_is_named_with_its_log_which_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, beside: bool
) -> None:
    monkeypatch.setenv("OUTBOX_BATCH_SIZE", "many")
    with claimed_place(folder / ".data") if beside else nullcontext(), started(folder) as run:
        assert run.wait(SECONDS) == 1

    complaint = (folder / "stderr").read_text()
    assert "failed: events-worker ended with exit code 1" in complaint
    assert "OUTBOX_BATCH_SIZE" in complaint
    log = folder / ".data" / ("beside-1" if beside else "") / "logs" / "events-worker.log"
    assert f"its log is {log}" in complaint
    assert "OUTBOX_BATCH_SIZE" in log.read_text()


def test_a_worker_that_dies_while_serving_ends_the_run(folder: Path) -> None:
    with started(folder, "--serve") as run:
        until(said(folder, "Everything stays up"))
        (victim,) = (
            int(entry.parent.name)
            for entry in Path("/proc").glob("[0-9]*/cmdline")
            if b"notifications_worker" in readable(entry) and str(folder) in working_folder(entry)
        )
        os.kill(victim, signal.SIGKILL)
        assert run.wait(SECONDS) == 1

    assert "failed: notifications-worker ended with exit code -9" in (folder / "stderr").read_text()


def readable(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


def working_folder(path: Path) -> str:
    with suppress(OSError):
        return str((path.parent / "cwd").readlink())
    return ""
