"""Child processes that never outlive this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Identity = Literal["same", "namespace", "nobody"]

# The kernel's parent-death signal comes when the *thread* that forked ends. This one lives as long as the process, so
# that a child may be started from any thread.
_forking_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tether")


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    death_signal: signal.Signals,
    identity: Identity = "same",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own (a Ctrl-C meant for us does not reach it), appending its output to `log`.

    It is sent `death_signal` when this process ends in whatever way. `keep_open` are file descriptors it inherits.
    """
    tether = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tether.py"))]
    arguments = [str(os.getpid()), str(int(death_signal)), identity, *map(str, command)]
    with log.open("ab") as output:
        return _forking_thread.submit(
            subprocess.Popen[bytes],
            [*tether, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
            pass_fds=keep_open,
            start_new_session=True,
        ).result()


def end(process: subprocess.Popen[bytes], *signals: signal.Signals, seconds_each: float) -> None:
    """Send the signals one after another, giving each its time, and SIGKILL at last. Returns when it is gone."""
    for request in signals:
        process.send_signal(request)
        # A frozen process could not act on the request.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(seconds_each)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def signal_family(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all its descendants."""
    for member in [pid, *_descendants(pid)]:
        try:
            os.kill(member, number)
        except ProcessLookupError:
            continue


def _descendants(pid: int) -> list[int]:
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return children + [grandchild for child in children for grandchild in _descendants(child)]
