"""Reads a document in a forked child under limits, as the worker does, and says how that ended."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingestion_worker.document import Page, read_lines
from ingestion_worker.isolation import linux
from ingestion_worker.isolation.task import Desk
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.read import read

if TYPE_CHECKING:
    from pathlib import Path

MEMORY_BYTES = 1_610_612_736
CPU_SECONDS = 10
DEADLINE_SECONDS = 60.0
MOST_CHARACTERS, MOST_PAGES = 20_000_000, 10_000


@dataclass
class Ending:
    """`how` is `read` or a problem; an exception that is none is reported as `untyped`."""

    how: str
    sentence: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    pages: list[Page] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def texts(self) -> list[str]:
        return [page.text for page in self.pages]


def order(name: str = "", **fields: object) -> dict[str, Any]:
    """Return an order as the worker writes it."""
    return {
        "format": None,
        "name": name,
        "mediaType": None,
        "charset": None,
        "password": None,
        "language": None,
        "ocr": "auto",
        "preserveFormatting": False,
        "extractMetadata": True,
        "maxCharacters": MOST_CHARACTERS,
        "maxPages": MOST_PAGES,
        **fields,
    }


def read_here(folder: Path, content: bytes, name: str = "", **fields: object) -> Ending:
    """Read in this process: for documents that are known to be harmless."""
    (folder / "source").write_bytes(content)
    try:
        result = read(Desk(folder, order(name, **fields), lambda _done, _all: None))
    except DocumentError as error:
        return Ending(error.problem, error.sentence)
    return Ending("read", "", result, list(read_lines(folder / "pages.ndjson", Page)))


def read_bounded(folder: Path, content: bytes, name: str = "", **fields: object) -> Ending:
    """Read in a child that has so much memory and time and no more."""
    (folder / "source").write_bytes(content)
    (folder / "ending").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_the_child(folder, order(name, **fields))
    status, late = _waited_for(child)
    return _judged(folder, status, late=late)


def _be_the_child(folder: Path, asked: dict[str, Any]) -> None:
    code = 1
    try:
        most = linux.virtual_bytes() + MEMORY_BYTES  # What other tests have loaded is nobody's fault here.
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Libraries tell their last words there.
        try:
            ending: dict[str, Any] = {"how": "read", "result": read(Desk(folder, asked, lambda _done, _all: None))}
        except DocumentError as error:
            ending = {"how": error.problem, "sentence": error.sentence}
        except BaseException as error:  # noqa: BLE001  the test is about what gets here
            ending = {"how": "untyped", "sentence": repr(error)}
        ending["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (folder / "ending").write_text(json.dumps(ending))
        code = 0
    finally:
        os._exit(code)


def _waited_for(child: int) -> tuple[int, bool]:
    """Wait for the child's end, or make it."""
    late = False
    handle = os.pidfd_open(child)
    try:
        if not select.select([handle], [], [], DEADLINE_SECONDS)[0]:
            late = True
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1], late
    finally:
        os.close(handle)


def _judged(folder: Path, status: int, *, late: bool) -> Ending:
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return Ending(Problem.TIMEOUT)
    if os.WIFSIGNALED(status):
        return Ending(
            Problem.OOM if os.WTERMSIG(status) == signal.SIGABRT else Problem.CRASH, f"signal {os.WTERMSIG(status)}"
        )
    if os.WEXITSTATUS(status) or not (folder / "ending").exists():
        return Ending("untyped", f"left with {status}")
    ending = Ending(**json.loads((folder / "ending").read_text()))
    if ending.how == "read":
        ending.pages = list(read_lines(folder / "pages.ndjson", Page))
    return ending
