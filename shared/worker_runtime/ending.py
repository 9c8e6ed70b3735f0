"""How a process ends: its exit code, the sentence that explains it, and what makes it end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import structlog

from worker_runtime import logs
from worker_runtime.loops import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = structlog.get_logger()

FAILED = 1
SIGNAL_BASE = 128
# What handing back and closing may take after the jobs' own deadline, before the process is ended whatever it does;
# an orchestrator that gives SHUTDOWN_TIMEOUT_MS and 5 s more never has to kill.
CLOSING_SECONDS = 4.5


@dataclass(frozen=True)
class Ending:
    """An exit code and why: 0 asked to by itself, 1 failed, 128 and the signal's number after a clean drain."""

    code: int
    reason: str


def bad_configuration(problems: Sequence[str]) -> Ending:
    """Say in the log what is wrong with the settings, a line for each, and how that ends the process."""
    for problem in problems:
        log.error("bad_setting", problem=problem)
    return Ending(FAILED, f"bad configuration: {len(problems)} wrong, each named above")


class StopOrders:
    """Every reason to stop, in the order they came: a crash, an empty queue. The first stops the worker."""

    def __init__(self, grace_seconds: float, announce: Callable[[], None]) -> None:
        self.stop = StopSignal()
        self.asked = asyncio.Event()
        self._grace_seconds = grace_seconds
        self._announce = announce
        self._reasons: list[Ending] = []

    @property
    def ending(self) -> Ending:
        """How the worker ends: by the first failure among the reasons, else by the first reason."""
        failures = [reason for reason in self._reasons if reason.code == FAILED]
        return (failures or self._reasons)[0]

    def give(self, reason: Ending) -> None:
        """Stop taking work now; what runs has the grace. May be called again: more reasons, same stop."""
        self._reasons.append(reason)
        self._announce()
        self.stop.request(self._grace_seconds)
        self.asked.set()


class ProcessOrders(StopOrders):
    """Those of a process that is one worker and nothing else: signals are reasons, too, and a stop has a last resort.

    Listens to SIGTERM and SIGINT from construction on. Their handlers run in Python's main thread even while a job
    blocks the event loop, and arm the last resort.
    """

    def __init__(self, grace_seconds: float, announce: Callable[[], None]) -> None:
        super().__init__(grace_seconds, announce)
        self._loop = asyncio.get_running_loop()
        # A signal interrupts whatever runs: without a context of its own, its log lines would name a bystander's job.
        self._context = contextvars.copy_context()
        self._signals = 0
        self._last_resort = LastResort()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def give(self, reason: Ending) -> None:
        """See `StopOrders`."""
        self._last_resort.arm(self._grace_seconds + CLOSING_SECONDS)
        super().give(reason)

    def _receive(self, number: int, _: object) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            self._last_resort.arm(self._grace_seconds + CLOSING_SECONDS)
            self._call(self._stop, name, Ending(SIGNAL_BASE + number, f"{name}: drained"))
        else:
            self._last_resort.arm(CLOSING_SECONDS)
            self._call(self._stop_at_once, name)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        self._loop.call_soon_threadsafe(functools.partial(function, *args), context=self._context)

    def _stop(self, name: str, ending: Ending) -> None:
        log.info("signal_received", signal=name, graceMs=round(self._grace_seconds * 1000))
        self.give(ending)

    def _stop_at_once(self, name: str) -> None:
        log.warning("second_signal_received", signal=name)
        self.give(Ending(FAILED, f"second signal ({name}): jobs in flight were handed back at once"))
        self.stop.request(0)


class LastResort:
    """Ends the process after a time, from a thread that nothing of ours can hold up."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._due = float("inf")

    def arm(self, seconds: float) -> None:
        """End the process in `seconds`; an earlier end that was armed before stands."""
        due = time.monotonic() + seconds
        if due >= self._due:
            return
        self._due = due
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _give_up)
        self._timer.daemon = True
        self._timer.start()


def end_process(ending: Ending) -> NoReturn:
    """Write the last line and end, past anything that would wait for a thread or task that does not end."""
    say = log.error if ending.code == FAILED else log.info
    say("worker_stopped", exitCode=ending.code, reason=ending.reason)
    logs.flush()
    os._exit(ending.code)


def _give_up() -> None:
    end_process(Ending(FAILED, "drain deadline exceeded: something would not stop; its jobs are recovered by others"))
