"""What goes wrong whatever the workers do, drawn from a seeded random and told in the history.

Of a process: `killed` (SIGKILL), `stopped` (SIGTERM, and it ended), `frozen` and `thawed`. Of a server, named by the
note: `gone` and `back`. Else: `cut off` (the workers' backends were ended).
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from chaos.fleet import Fleet
    from chaos.history import Pen
    from embedded_stack import PostgresServer

CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name LIKE %s || '%%' AND datname = current_database()
"""


class Storm(ABC):
    """Brings one fault after another over a fleet and its servers. Every fault is over, or ends by itself in time."""

    # How long a process stands still; whose backends are ended.
    freeze_seconds: tuple[float, float]
    application: str

    def __init__(self, fleet: Fleet, postgres: PostgresServer, pen: Pen, chance: Random) -> None:
        self._fleet = fleet
        self._postgres = postgres
        self._pen = pen
        self._chance = chance
        self._later: list[threading.Thread] = []
        self._bag: list[Callable[[], None]] = []

    def rage(self, seconds: float, pause: tuple[float, float]) -> None:
        """Bring faults for so long and at least one of each kind, with pauses between them."""
        deadline = time.monotonic() + seconds
        self._fill_the_bag()
        while self._bag or time.monotonic() < deadline:
            time.sleep(self._chance.uniform(*pause))  # The moment of a fault is what varies.
            self._next()()
        for thread in self._later:
            thread.join()

    def _next(self) -> Callable[[], None]:
        if not self._bag:
            self._fill_the_bag()
        return self._bag.pop()

    def _fill_the_bag(self) -> None:
        self._bag = [self.kill, self.kill, self.terminate, self.freeze, self.restart_postgres, self.cut_off]
        self._bag += self.of_its_own()
        self._chance.shuffle(self._bag)

    @abstractmethod
    def of_its_own(self) -> list[Callable[[], None]]:
        """Return the faults that only workers of this kind know."""

    def kill(self) -> None:
        """SIGKILL a worker, and have it back soon."""
        worker = self._fleet.pick(self._chance)
        if worker is not None:
            self._fleet.kill(worker)
            self._fleet.restart(worker)

    def terminate(self) -> None:
        """Stop a worker as a deployment does, and start the next."""
        worker = self._fleet.pick(self._chance)
        if worker is not None:
            self._in_the_background(lambda: self._fleet.replace(worker))

    def freeze(self) -> None:
        """Let a worker lose what it holds without knowing, and go on."""
        worker = self._fleet.pick(self._chance)
        if worker is not None:
            seconds = self._chance.uniform(*self.freeze_seconds)
            self._in_the_background(lambda: self._fleet.freeze(worker, seconds))

    def restart_postgres(self) -> None:
        """End it fast, at once, or by SIGKILL."""
        how = self._chance.choice((signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
        self._pen.tell("gone", note=f"postgres {how.name}")
        if how is signal.SIGKILL:
            self._postgres.kill()
        else:
            self._postgres._process.send_signal(how)  # type: ignore[union-attr]
            self._postgres.stop()
        time.sleep(self._chance.uniform(0, 1.5))  # The length of the outage varies.
        self._postgres.start()
        self._pen.tell("back", note="postgres")

    def cut_off(self) -> None:
        """End every backend of the workers."""
        self._pen.tell("cut off")
        self._ask(CUT_OFF, self.application)

    def _ask(self, statement: str, *arguments: object) -> None:
        with psycopg.connect(self._postgres.url) as connection:
            connection.execute(statement, arguments or None)

    def _in_the_background(self, fault: Callable[[], None]) -> None:
        def bring() -> None:
            try:
                fault()
            except psycopg.OperationalError:
                # Another fault took the server away meanwhile.
                self._pen.tell("interrupted")

        self._later.append(threading.Thread(target=bring))
        self._later[-1].start()
