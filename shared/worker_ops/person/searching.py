"""Goes through all places, to find a person or to erase them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from worker_ops.output import say
from worker_ops.person.jobs import is_notification
from worker_ops.person.places_store import JOB_PLACES, PLACES
from worker_ops.person.tally import Tally

if TYPE_CHECKING:
    from worker_ops.person.jobs import HeldJob, PersonJobs
    from worker_ops.person.places_store import Place
    from worker_ops.person.store import PersonStore, Search
    from worker_runtime.loops import StopSignal

SAY_EVERY_SECONDS = 2.0


@dataclass
class Searching:
    """One command's way through Redis and the databases that there are. Ends early when a stop is requested.

    `jobs` are Redis', `side_effects` the jobs database.
    """

    jobs: PersonJobs
    store: PersonStore | None
    side_effects: PersonStore | None
    stop: StopSignal
    _said: float = 0.0

    async def find(self, search: Search) -> Tally:
        """Count what holds the person; nothing is changed."""
        tally = Tally()
        at_work = await self._jobs(search, tally, apply=False)
        await self._tables(replace(search, at_work=at_work), tally, apply=False)
        return tally

    async def erase(self, search: Search) -> Tally:
        """Erase what nobody works on, and count it. The jobs go first: none of them is to write its record again."""
        tally = Tally()
        at_work = await self._jobs(search, tally, apply=True)
        await self._tables(replace(search, at_work=at_work), tally, apply=True)
        return tally

    async def _jobs(self, search: Search, tally: Tally, *, apply: bool) -> tuple[str, ...]:
        """Return the notifications at work, as their deliveries name them."""
        at_work: list[str] = []
        async for page in self.jobs.find(search):
            if apply:
                await self.jobs.remove(page)
            for job in page:
                if job.may_go or not apply:
                    tally.add(self._place(job), [(job.name, not job.may_go)])
                if job.queue and is_notification(job.queue) and not job.may_go:
                    at_work.append(f"{self.jobs.label(job.queue)}:{job.name}")
            if self.stop.requested.is_set():
                break
        return tuple(at_work)

    async def _tables(self, search: Search, tally: Tally, *, apply: bool) -> None:
        for store, places in ((self.side_effects, JOB_PLACES), (self.store, PLACES)):
            for place in places if store else ():
                if self.stop.requested.is_set():
                    return
                assert store  # noqa: S101  see above
                await self._table(store, place, search, tally, apply=apply)

    async def _table(self, store: PersonStore, place: Place, search: Search, tally: Tally, *, apply: bool) -> None:
        walk = store.erase(place, search) if apply else store.find(place, search)
        async for stretch in walk:
            tally.add(place.table, stretch.rows)
            self._tell(f"{place.table}: {stretch.done:.0%}")
            if self.stop.requested.is_set():
                return

    def _tell(self, progress: str) -> None:
        if (now := time.monotonic()) >= self._said + SAY_EVERY_SECONDS:
            self._said = now
            say(progress)

    def _place(self, job: HeldJob) -> str:
        return f"{self.jobs.label(job.queue)} {job.state}" if job.queue else "notes of the workers"
