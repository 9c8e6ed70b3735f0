"""How much of a person was found, place by place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker_ops.output import Row

MOST_IDS = 1_000


@dataclass(slots=True)
class Found:
    """What one place holds; `at_work` of it is being worked on. Of many, not all ids are kept."""

    count: int = 0
    at_work: int = 0
    ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """Everything that was found, by place."""

    places: dict[str, Found] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many rows, jobs and notes in all."""
        return sum(found.count for found in self.places.values())

    @property
    def idle(self) -> int:
        """How many of them nobody works on."""
        return self.total - sum(found.at_work for found in self.places.values())

    def add(self, place: str, rows: Iterable[tuple[str, bool]]) -> None:
        """Count rows: the id of each, and whether it is being worked on."""
        for name, at_work in rows:
            found = self.places.setdefault(place, Found())
            found.count += 1
            found.at_work += at_work
            if len(found.ids) < MOST_IDS:
                found.ids.append(name)

    def rows(self, how: str) -> list[Row]:
        """Write it; only programs get the ids, and at most `MOST_IDS` of a place."""
        return [
            {"place": place, "found": found.count, "atWork": found.at_work}
            | ({} if how == "table" else {"ids": found.ids})
            for place, found in self.places.items()
        ]


def erasure_rows(erased: Tally, left: Tally | None) -> list[Row]:
    """Write what was erased, and what was there afterwards, if that is known."""
    after = left or Tally()
    return [
        {
            "place": place,
            "erased": erased.places.get(place, Found()).count,
            "left": after.places.get(place, Found()).count if left else None,
        }
        for place in dict.fromkeys([*erased.places, *after.places])
    ]
