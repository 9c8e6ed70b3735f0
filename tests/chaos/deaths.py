"""How a process under test dies, freezes, hurries or loses its clock, wherever its functions are replaced.

Nothing in the product knows of it. The points themselves are in `crash_points.py` of each part.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3_600.0


def die() -> None:
    """Be gone at once, as by the kernel's hand."""
    os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def freeze_once() -> None:
    """Stop until somebody sends SIGCONT; the second time, do nothing."""
    os.kill(os.getpid(), signal.SIGSTOP)


def before(owner: Any, name: str, happen: Callable[[], None] = die, when: Callable[..., object] = bool) -> None:
    """Let something happen when a method is called whose last argument `when` likes."""
    original = getattr(owner, name)

    async def method(*arguments: Any, **named: Any) -> Any:
        if when(arguments[-1]):
            happen()
        return await original(*arguments, **named)

    setattr(owner, name, method)


def after(owner: Any, name: str, when: Callable[[Any, Any], object] = lambda *_: True) -> None:
    """Die when a method has returned; `when` is asked with whose it is and what it returned."""
    original = getattr(owner, name)

    async def method(self: Any, *arguments: Any, **named: Any) -> Any:
        returned = await original(self, *arguments, **named)
        if when(self, returned):
            die()
        return returned

    setattr(owner, name, method)


def quicken(loop: Any, **seconds: float) -> None:
    """Change the defaults of what a loop is made with."""
    loop.__init__.__kwdefaults__.update(seconds)


def step_clock_when_told(seconds: float) -> None:
    """Let this process' wall clock jump by so much at SIGUSR1."""
    right = time.time

    def step(*_: object) -> None:
        time.time = lambda: right() + seconds

    signal.signal(signal.SIGUSR1, step)
