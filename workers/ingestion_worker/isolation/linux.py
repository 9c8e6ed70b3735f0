"""What Linux offers for keeping a process in bounds and Python does not, and what /proc tells of processes.

Raises `OSError` where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "adopt_orphans",
    "children_of",
    "descendants_of",
    "die_with_parent",
    "drop_capabilities",
    "forbid_new_privileges",
    "hide_memory",
    "private_bytes",
    "processes",
    "resident_bytes",
    "threads",
    "virtual_bytes",
]

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# From <linux/prctl.h> and <linux/capability.h>.
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION_3 = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal: int) -> None:
    """Have this process get `signal` when the thread that started it ends. Not inherited by children."""
    _prctl(PR_SET_PDEATHSIG, signal)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own. Not inherited by children."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """Make set-user-id bits and file capabilities mean nothing from here on, in children too."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory and environment."""
    _prctl(PR_SET_DUMPABLE, 0)


def drop_capabilities() -> None:
    """Give up what root may do beyond others: raise its own limits, read other processes, override permissions."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, none))


def threads() -> int:
    """Count the threads of this process, those of native code included."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def resident_bytes(pid: int | str = "self") -> int:
    """Return how much memory a process has, what it shares with others included; 0 when it has ended."""
    return _statm(pid)[1]


def private_bytes(pid: int | str = "self") -> int:
    """Return how much memory of a process is backed by no file; memory that it shares since a fork is included."""
    with suppress(OSError):
        lines = (PROC / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return 0


def virtual_bytes() -> int:
    """Return the size of this process' address space."""
    return _statm("self")[0]


def processes() -> Iterator[int]:
    """Yield the ids of all processes."""
    return (int(entry.name) for entry in os.scandir(PROC) if entry.name.isdecimal())


def children_of(pid: int) -> list[int]:
    """Return the children of a process, the dead that nobody waited for included."""
    return _looking_for_children()(pid)


def descendants_of(pid: int) -> list[int]:
    """Return the children of a process, their children, and so on."""
    look, found, unseen = _looking_for_children(), list[int](), [pid]
    while unseen:
        children = look(unseen.pop())
        found += children
        unseen += children
    return found


def _looking_for_children() -> Callable[[int], list[int]]:
    if Path("/proc/thread-self/children").exists():
        return _listed_children
    # A kernel built without those lists; asking every process for its parent takes a few milliseconds.
    families = defaultdict[int, list[int]](list)
    for process in processes():
        families[_parent(process)].append(process)
    return lambda pid: families.get(pid, [])


def _listed_children(pid: int) -> list[int]:
    with suppress(OSError):
        threads = [*(PROC / str(pid) / "task").iterdir()]
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return []


def _parent(pid: int) -> int:
    with suppress(OSError):
        # The name before the last bracket is of the process' own choice.
        return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


def _statm(pid: int | str) -> tuple[int, int]:
    with suppress(OSError):
        size, resident, *_ = (PROC / str(pid) / "statm").read_bytes().split()
        return int(size) * PAGE_BYTES, int(resident) * PAGE_BYTES
    return 0, 0


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
