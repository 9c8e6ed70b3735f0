"""Tasks that do everything a document may make a reader do, on demand. They run in children only."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion_worker.isolation.child import PIPE
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from ingestion_worker.isolation.task import Desk

MEBIBYTE = 1 << 20
FOREVER = 3600
LIMITS = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")


def succeed(desk: Desk) -> dict[str, Any]:
    return {"echo": desk.order, "pid": os.getpid()}


def look_around(desk: Desk) -> dict[str, Any]:
    """Tell what a task finds where it runs."""
    Path("made.txt").write_text("here", encoding="ascii")
    return {
        "cwd": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],  # noqa: PTH208
        "streams": [os.readlink(f"/proc/self/fd/{stream}") for stream in range(3)],  # noqa: PTH115
        "leader": os.getsid(0) == os.getpid() == os.getpgrp(),
        "umask": oct(Path("made.txt").stat().st_mode & 0o777),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        "oom": Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip(),
        "status": Path("/proc/self/status").read_text(encoding="ascii"),
        "threads": threading.active_count(),
        "random": random.random(),
        "parent": os.getppid(),
    }


def wait(desk: Desk) -> dict[str, Any]:
    time.sleep(desk.order["seconds"])
    return {}


def hang(_desk: Desk) -> dict[str, Any]:
    """Wait for what does not come, deaf to everything that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(FOREVER)
    return {}


def hold_the_interpreter(_desk: Desk) -> dict[str, Any]:
    ctypes.PyDLL(None).sleep(FOREVER)
    return {}


def compute(desk: Desk) -> dict[str, Any]:
    if desk.order.get("deaf"):
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
    while True:
        pass


def spin(_desk: Desk) -> dict[str, Any]:
    while True:
        pass


def hoard(_desk: Desk) -> dict[str, Any]:
    """Take memory bit by bit, as Python does."""
    held = []
    while True:
        held.append(bytearray(MEBIBYTE))


def ask_for_too_much(_desk: Desk) -> dict[str, Any]:
    return {"length": len(bytearray(1 << 36))}


def hide_the_want_of_memory(_desk: Desk) -> dict[str, Any]:
    try:
        bytearray(1 << 36)
    except MemoryError as error:
        raise ValueError("a library's own words") from error
    return {}


def hoard_and_abort(_desk: Desk) -> dict[str, Any]:
    """Take memory until none is left and abort, as native code does."""
    held = []
    try:
        while True:
            held.append(bytearray(MEBIBYTE))
    except MemoryError:
        os.abort()


def share_memory(_desk: Desk) -> dict[str, Any]:
    """Take memory that no limit of a single process counts."""
    held = []
    while True:
        held.append(mmap.mmap(-1, MEBIBYTE * 4))
        held[-1].write(b"x" * MEBIBYTE * 4)


def breed_hoarders(_desk: Desk) -> dict[str, Any]:
    """Take memory in many processes, each within its limit."""
    for _ in range(8):
        if os.fork() == 0:
            _held = bytearray(b"x" * MEBIBYTE * 40)
            time.sleep(FOREVER)
    time.sleep(FOREVER)
    return {}


def abort(_desk: Desk) -> dict[str, Any]:
    os.abort()


def segfault(_desk: Desk) -> dict[str, Any]:
    return {"nothing": ctypes.string_at(0)}


def be_killed(_desk: Desk) -> dict[str, Any]:
    """Die as if the kernel had chosen this process for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def write_forever(_desk: Desk) -> dict[str, Any]:
    with Path("endless").open("wb") as file:
        while True:
            file.write(b"x" * MEBIBYTE)


def write_forever_natively(_desk: Desk) -> dict[str, Any]:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    return write_forever(_desk)


def forbid_its_folder(_desk: Desk) -> dict[str, Any]:
    """Leave behind what cannot simply be removed."""
    Path("a/b").mkdir(parents=True)
    Path("a/b/file").write_text("x", encoding="ascii")
    Path("a/away").symlink_to("/")
    for folder in ("a/b", "a", "."):
        Path(folder).chmod(0)
    return {}


def leave_children(desk: Desk) -> dict[str, Any]:
    """Leave processes that hear nothing, in sessions of their own, without a parent; then end as ordered."""
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                hang(desk)
            os._exit(0)
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER})"])
    return {} if desk.order["end"] == "well" else hang(desk)


def flood(_desk: Desk) -> dict[str, Any]:
    """Report progress without end, past everything that keeps an honest task from doing so."""
    frame = b'\0\0\0\x12{"progress":[1,2]}' * 1000
    while True:
        os.write(PIPE, frame)


def report(desk: Desk) -> dict[str, Any]:
    total = desk.order["total"]
    for done in range(1, total + 1):
        desk.report(done, total)
        if desk.order.get("slowly"):
            time.sleep(0.11)
    return {}


def write_garbage(desk: Desk) -> dict[str, Any]:
    os.write(PIPE, bytes.fromhex(desk.order["hex"]))
    if desk.order.get("stay", True):
        time.sleep(FOREVER)
    os._exit(0)


def go_silently(desk: Desk) -> dict[str, Any]:
    os._exit(desk.order["code"])


def be_deaf_to_the_end(_desk: Desk) -> dict[str, Any]:
    """Say the last word and stay."""
    os.write(PIPE, b'\0\0\0\x0b{"done":{}}')
    time.sleep(FOREVER)
    return {}


def return_too_much(_desk: Desk) -> dict[str, Any]:
    return {"text": "x" * MEBIBYTE}


def return_what_is_no_json(_desk: Desk) -> dict[str, Any]:
    return {"set": {1, 2}}


EXCEPTIONS: dict[str, BaseException] = {
    "DocumentError": DocumentError(Problem.ENCRYPTED, "it needs a password"),
    "ValueError": ValueError("SECRET of the document"),
    "MemoryError": MemoryError(),
    "RecursionError": RecursionError("SECRET"),
    "SystemExit": SystemExit(0),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "EFBIG": OSError(errno.EFBIG, "SECRET"),
    "ENOSPC": OSError(errno.ENOSPC, "SECRET"),
}


def fail(desk: Desk) -> dict[str, Any]:
    raise EXCEPTIONS[desk.order["exception"]]


def try_to_lift_limits(_desk: Desk) -> dict[str, Any]:
    """Tell which limits could be lifted."""
    lifted = []
    for name in LIMITS:
        which = getattr(resource, name)
        _, most = resource.getrlimit(which)
        try:
            resource.setrlimit(which, (most, most + 1))
            lifted.append(name)
        except (ValueError, OSError):
            continue
    return {"lifted": lifted}


def read_the_workers_environment(desk: Desk) -> dict[str, Any]:
    try:
        environment = Path(f"/proc/{desk.order['worker']}/environ").read_bytes()
    except OSError as error:
        return {"refused": error.strerror}
    return {"read": environment.decode(errors="replace")[:1000]}


def look_out_of_the_sandbox(desk: Desk) -> dict[str, Any]:
    """Tell what can be seen and done beyond the folder."""
    try:
        Path(desk.order["outside"]).write_text("x", encoding="ascii")
        written = True
    except OSError:
        written = False
    return {
        "interfaces": [name for _, name in socket.if_nameindex()],
        "processes": sum(1 for _ in Path("/proc").glob("[0-9]*")),
        "written": written,
    }


def flee(_desk: Desk) -> dict[str, Any]:
    """Be somebody else before anybody can kill this process."""
    if os.fork() == 0:
        while os.fork() == 0:
            os.setsid()
        os._exit(0)
    time.sleep(FOREVER)
    return {}


def breed(_desk: Desk) -> dict[str, Any]:
    """Have children that have children, all alive."""
    while os.fork() == 0:
        time.sleep(0.001)
    time.sleep(FOREVER)
    return {}
