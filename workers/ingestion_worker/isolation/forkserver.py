"""The fork server: a process with one thread and no secrets, that forks a child for each task and sees it out.

`python -m ingestion_worker.isolation.forkserver SOCKET MODULE...`: loads the modules, so that no child has to, then
does what the worker at the other end of the socket orders until that hangs up. Nothing that it started outlives it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ingestion_worker.isolation import linux
from ingestion_worker.isolation.child import MOST_FILES_OPEN, be_a_child
from ingestion_worker.isolation.wire import MOST_MESSAGE_BYTES, Ended, ForkOrder

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGH_EVERY_SECONDS = 0.25
KIBIBYTE = 1024
BURIAL_SECONDS = 1.0
# A task starts one program at a time.
MOST_PROCESSES = 64


def main(arguments: list[str]) -> None:
    """Be the process."""
    worker = socket.socket(fileno=int(arguments[0]))
    # A fork copies the thread that forks and the locks of all others.
    preload(arguments[1:])
    # What is there now never becomes garbage; looking for it would copy every page that children share.
    gc.collect()
    gc.freeze()
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES_OPEN, MOST_FILES_OPEN))
    linux.adopt_orphans()
    ForkServer(worker).serve()


def preload(modules: Iterable[str]) -> None:
    """Import modules; ends the process when one starts a thread. One that cannot be imported fails its tasks alone."""
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
        if linux.threads() > 1:
            sys.exit(f"{module} starts a thread when it is imported: nothing can be forked safely after that")


@dataclass(frozen=True, slots=True)
class Child:
    """A task at work."""

    order: ForkOrder
    born_with: int  # Bytes that it shares with this process.


class ForkServer:
    """Forks, kills and buries children."""

    def __init__(self, worker: socket.socket) -> None:
        self._worker = worker
        self._children: dict[int, Child] = {}
        self._serving = True
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Work until the worker hangs up or SIGTERM comes, then leave nobody behind."""
        self._selector.register(self._worker, selectors.EVENT_READ, self._obey)
        self._selector.register(self._signals(), selectors.EVENT_READ, self._wake)
        self._tell({"ready": linux.resident_bytes()})
        weigh_at = 0.0
        while self._serving:
            for key, _ in self._selector.select(WEIGH_EVERY_SECONDS if self._children else None):
                key.data()
            self._bury_the_dead()
            if time.monotonic() >= weigh_at:
                self._kill_the_overweight()
                weigh_at = time.monotonic() + WEIGH_EVERY_SECONDS
        self._children.clear()
        self._bury_orphans()

    def _signals(self) -> socket.socket:
        """Return what becomes readable when a child ends or SIGTERM comes."""
        self._woken, wakes = socket.socketpair()
        self._woken.settimeout(0)
        wakes.settimeout(0)
        signal.set_wakeup_fd(wakes.detach(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self._woken

    def _wake(self) -> None:
        self._woken.recv(KIBIBYTE)

    def _stop(self) -> None:
        self._serving = False

    def _obey(self) -> None:
        """Do what the worker orders."""
        try:
            message, pipes, _, _ = socket.recv_fds(self._worker, MOST_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            message, pipes = b"", []
        match json.loads(message) if message else None:
            case {"fork": fields}:
                self._fork(ForkOrder.read(fields), pipes[0])
            case {"kill": number}:
                self._kill(*(pid for pid, child in self._children.items() if child.order.number == number))
            case _:
                self._stop()

    def _fork(self, order: ForkOrder, pipe: int) -> None:
        server, born_with = os.getpid(), linux.private_bytes()
        try:
            pid = os.fork()
        except OSError:
            self._tell({"ended": asdict(Ended(order.number, None))})
        else:
            if pid == 0:
                be_a_child(order, pipe, server)
            self._children[pid] = Child(order, born_with)
        finally:
            os.close(pipe)

    def _kill(self, *pids: int) -> None:
        """Kill children with their groups. Nobody has waited for them yet, so these are still their numbers."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # It may not have got as far as to have a group.

    def _bury_the_dead(self) -> None:
        """Tell the worker of children that have ended, once nothing is left of them."""
        while pid := dead_child():
            child = self._children.pop(pid, None)
            if child is None:
                os.waitpid(pid, 0)
                self._bury_orphans()
                continue
            self._kill(pid)
            _, status, usage = os.wait4(pid, 0)
            self._bury_orphans()
            self._tell({"ended": asdict(ended(child, os.waitstatus_to_exitcode(status), usage))})

    def _bury_orphans(self) -> None:
        """Kill what children left behind when they ended: living ones adopt their own orphans.

        Of orphans that have children faster than they are found the rest is killed when the next of them ends.
        """
        give_up_at = time.monotonic() + BURIAL_SECONDS
        while has_children() and time.monotonic() < give_up_at:
            orphans = set(linux.children_of(os.getpid())) - self._children.keys()
            if not orphans:
                break
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                os.waitpid(pid, 0)

    def _kill_the_overweight(self) -> None:
        """Kill tasks whose processes are too many or have too much memory in sum: a limit binds but one process."""
        for pid, child in self._children.items():
            family = [pid, *linux.descendants_of(pid)]
            most = child.born_with + child.order.limits.memory_bytes
            if len(family) > MOST_PROCESSES or sum(map(linux.private_bytes, family)) > most:
                self._kill(pid)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._worker.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            self._stop()


def dead_child() -> int:
    """Return a child that has ended and was not waited for, which keeps its number from being given away; 0: none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0


def has_children() -> bool:
    """Tell whether there is any child, dead or alive; much quicker than looking for them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def ended(child: Child, status: int, usage: resource.struct_rusage) -> Ended:
    """Return what the worker is told of a child."""
    peak = max(0, usage.ru_maxrss * KIBIBYTE - child.born_with)
    return Ended(child.order.number, status, peak, usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    main(sys.argv[1:])
