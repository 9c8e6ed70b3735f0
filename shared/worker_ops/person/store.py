"""Walks whole tables, a stretch of pages at a time: no index knows what is inside a payload."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_ops.person.address import Person
    from worker_ops.person.places_store import Place
    from worker_runtime.postgres import Database

# A page is 8 kB, and what is large lies elsewhere: at first few, then as many as are read within a moment.
FIRST_PAGES = 16
MOST_PAGES = 4_096
GOOD_SECONDS = 0.5

PAGES = """
SELECT coalesce(pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint, 0) AS pages
"""
RECORD = """
INSERT INTO notification_edit (verb, tenant_id, fingerprint, edited_by, reason)
SELECT 'erase', $1, fingerprint, $3, $4 FROM unnest($2::text[]) AS fingerprint
"""
KEPT = """
SELECT count(*) FROM notification_suppression
 WHERE fingerprint = ANY ($1::text[]) AND ($2::text IS NULL OR tenant_id = $2)
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """`(key, busy)` of each row found or erased in some pages of a table; and how far the walk is, 0 to 1."""

    rows: tuple[tuple[str, bool], ...]
    done: float


@dataclass(frozen=True, slots=True)
class Search:
    """Whom to look for, of which tenant (`None`: all), and the jobs whose deliveries somebody works on."""

    person: Person
    tenant: str | None = None
    at_work: tuple[str, ...] = ()


class PersonStore:
    """Every method raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, place: Place, search: Search) -> AsyncIterator[Stretch]:
        """Look at every row there is now."""
        async for stretch in self._walk(place, search, apply=False):
            yield stretch

    async def erase(self, place: Place, search: Search) -> AsyncIterator[Stretch]:
        """Erase the addresses from every row that nobody works on, a transaction for each stretch."""
        async for stretch in self._walk(place, search, apply=True):
            yield stretch

    async def record(self, search: Search, by: str, reason: str) -> None:
        """Write down that somebody is erased, without the address."""
        async with self._database.connected() as connection:
            await connection.execute(RECORD, search.tenant, list(search.person.fingerprints), by, reason)

    async def suppressed(self, search: Search) -> int:
        """Count the entries, by fingerprint, that keep messages from the person."""
        async with self._database.connected() as connection:
            return int(await connection.fetchval(KEPT, list(search.person.fingerprints), search.tenant))

    async def _walk(self, place: Place, search: Search, *, apply: bool) -> AsyncIterator[Stretch]:
        async with self._database.connected() as connection:
            total = int(await connection.fetchval(PAGES, place.table))
        page, size = 0, FIRST_PAGES
        while page < total:
            began = time.monotonic()
            try:
                rows = await self._stretch(place, search, page, min(page + size, total), apply=apply)
            except DatabaseUnavailable:
                # Too much for the time a statement has, perhaps.
                if size == 1:
                    raise
                size = max(1, size // 8)
                continue
            page = min(page + size, total)
            size = next_size(size, time.monotonic() - began)
            yield Stretch(rows, page / total)

    async def _stretch(
        self, place: Place, search: Search, first: int, end: int, *, apply: bool
    ) -> tuple[tuple[str, bool], ...]:
        asked = ((first, 0), (end, 0), search.person.loose, search.tenant, list(search.at_work))
        if not apply:
            async with self._database.connected() as connection:
                found = await connection.fetch(place.find, *asked)
            return tuple((row["key"], row["busy"]) for row, _ in holding(place, found, search.person))
        async with self._database.transaction() as connection:
            held = holding(place, await connection.fetch(place.lock, *asked), search.person)
            await connection.executemany(place.erase, [(row["place"], *new) for row, new in held])
        return tuple((row["key"], False) for row, _ in held)


def holding(place: Place, found: Sequence[Any], person: Person) -> list[tuple[Any, tuple[str | None, ...]]]:
    """Return the rows that hold the person at a closer look, each with its columns without them."""
    looked = ((row, without(place, row, person)) for row in found)
    return [(row, new) for row, new in looked if new is not None]


def next_size(pages: int, seconds: float) -> int:
    """Return how many pages to read next, when so many took so long."""
    wished = pages * GOOD_SECONDS / max(seconds, 0.001)
    return max(1, min(MOST_PAGES, pages * 4, int(wished)))


def without(place: Place, row: Any, person: Person) -> tuple[str | None, ...] | None:
    """Return a row's columns without the person; `None` when a closer look finds no address in it."""
    before = tuple(row[column] for column in place.columns)
    gone = any(row[column] and person.is_in(row[column]) for column in place.whole)
    after = tuple(
        erased(place, column, row[column], person, gone=gone) if row[column] is not None else None
        for column in place.columns
    )
    return None if after == before else after


def erased(place: Place, column: str, text: str, person: Person, *, gone: bool) -> str | None:
    """Return a column without the person; with its recipient a delivery loses the whole message."""
    if column in place.whole:
        return None if gone else text
    if column in place.json:
        return None if gone else person.erased_json(text) or text
    return person.erased(text)
