"""The child that does one task: bounds first, then the work, then one last word to the worker."""

from __future__ import annotations

import errno
import importlib
import math
import os
import resource
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from ingestion_worker.isolation import linux
from ingestion_worker.isolation.task import Desk
from ingestion_worker.isolation.wire import framed, write
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestion_worker.isolation.task import Limits, Task
    from ingestion_worker.isolation.wire import ForkOrder

__all__ = ["MOST_FILES_OPEN", "be_a_child"]

PIPE = 3
MOST_FILES_OPEN = 256
# Of address space beyond the limit of memory: mapped files and what allocators reserve without using it.
RESERVED_BYTES = 1 << 30
# So that a task which used up its memory can still say so.
LAST_WORD_BYTES = 8 << 20
REPORT_EVERY_SECONDS = 0.1
LONGEST_SENTENCE = 1000
EASILY_KILLED = b"1000"
MEBIBYTE = 1 << 20


def be_a_child(order: ForkOrder, pipe: int, server: int) -> NoReturn:
    """Do the task and end: nothing of what the fork server was about to do goes on in here."""
    try:
        leave_the_server(pipe, server)
        stay_in_bounds(order.limits, Path(order.folder))
        write(PIPE, outcome(order))
    finally:
        os._exit(0)


def leave_the_server(pipe: int, server: int) -> None:
    """Lead a session of its own, that dies with the fork server and keeps nothing of it open but the pipe."""
    os.setsid()
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    linux.adopt_orphans()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    keep_only(pipe)


def keep_only(pipe: int) -> None:
    """Close everything but the pipe, which becomes `PIPE`; standard streams lead nowhere."""
    os.dup2(pipe, PIPE, inheritable=False)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(PIPE):
        os.dup2(nowhere, stream)
    os.closerange(PIPE + 1, MOST_FILES_OPEN)


def stay_in_bounds(limits: Limits, folder: Path) -> None:
    """Set every limit of this process and of those that it will start; no code of theirs can lift one."""
    os.umask(0o077)
    os.chdir(folder)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    # Where memory is short the kernel takes this process, not the worker.
    Path("/proc/self/oom_score_adj").write_bytes(EASILY_KILLED)
    # Python ignores SIGXFSZ: writing beyond the limit is an error like any other.
    limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    limit(resource.RLIMIT_CORE, 0)
    seconds = math.ceil(limits.seconds)
    limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    # Against DATA counts what a process may fill, private and writable memory. Against AS also counts what is only
    # mapped or reserved: kreuzberg reads a small file with 27 MiB of DATA and 348 of AS.
    limit(resource.RLIMIT_DATA, limits.memory_bytes, limits.memory_bytes + LAST_WORD_BYTES)
    limit(resource.RLIMIT_AS, linux.virtual_bytes() + limits.memory_bytes + RESERVED_BYTES)
    linux.forbid_new_privileges()
    linux.drop_capabilities()


def limit(which: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays as it is."""
    _, highest = resource.getrlimit(which)
    ceiling = soft if hard is None else hard
    if highest != resource.RLIM_INFINITY:
        ceiling = min(ceiling, highest)
    resource.setrlimit(which, (min(soft, ceiling), ceiling))


def outcome(order: ForkOrder) -> bytes:
    """Do the task; return the frame that tells how it went. Tells nothing of what was in the document."""
    try:
        return framed({"done": program(order.program)(Desk(Path(order.folder), order.order, Reports()))})
    except DocumentError as error:
        return failed(error)
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the end of this process
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        return failed(as_problem(error, order.limits))


def program(name: str) -> Task:
    """Find what is written as `module:function`. Raises `DocumentError` (CRASH) when it cannot be loaded."""
    module, _, function = name.partition(":")
    try:
        return cast("Task", getattr(importlib.import_module(module), function))
    except MemoryError:
        raise
    except BaseException as error:
        raise DocumentError(Problem.CRASH, f"{name} cannot be loaded ({type(error).__name__})") from error


class Reports:
    """Tells the worker how far a task is; more often than a person could read it, it tells nothing."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY_SECONDS:
            self._last = now
            write(PIPE, framed({"progress": [done, total]}))


def failed(error: DocumentError) -> bytes:
    """Return the frame of a task that has no result."""
    return framed({"failed": [error.problem, error.sentence[:LONGEST_SENTENCE]]})


def as_problem(error: BaseException, limits: Limits) -> DocumentError:
    """Name what went wrong by the kind of exception alone: its message may repeat the document."""
    causes = list(chain_of(error))
    if any(isinstance(cause, MemoryError) for cause in causes):
        return DocumentError(Problem.OOM, f"it takes more memory than {limits.memory_bytes // MEBIBYTE} MiB")
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if errno.EFBIG in numbers:
        return DocumentError(Problem.TOO_LARGE, f"a file made of it is larger than {limits.file_bytes // MEBIBYTE} MiB")
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return DocumentError(Problem.CRASH, "no space is left where documents are worked on")
    return DocumentError(Problem.CRASH, f"reading it ended in {type(error).__name__}")


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, what caused it, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
