"""What the doctor makes of what it sees. Pure: each function looks at one thing and says what it is and what helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events_worker.store import Lag
    from worker_ops.doctor.store import Index, Vacuum

LATE_SECONDS = 60.0
LONG_TRANSACTION_SECONDS = 60.0
LONG_UNDER_WAY_SECONDS = 600.0
LONG_BEGUN_SECONDS = 600.0
LONG_UNREAD_SECONDS = 3600.0
MOST_CLOCK_SECONDS = 1.0
MANY_DEAD_ROWS = 50_000
DEAD_RATIO = 0.2
LARGE_INDEX_BYTES = 64 * 2**20
# An entry of our widest index has about half of this when the index is packed as after a REINDEX.
BLOATED_BYTES_PER_ENTRY = 400
LARGE_ARCHIVE_BYTES = 20 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. With a `remedy` it needs attention."""

    check: str
    found: str
    remedy: str = ""


def lag(seen: Lag) -> Finding:
    """Judge how late events are published."""
    found = f"{seen.pending} pending, the oldest for {seen.seconds:.0f} s"
    if seen.seconds <= LATE_SECONDS:
        return Finding("lag", found)
    return Finding("lag", found, "`intelliflow outbox backlog` says whether it shrinks and what holds it up")


def dead_letters(seen: Lag) -> Finding:
    """Judge what waits for a person."""
    found = f"{seen.dead} dead letters"
    remedy = "`intelliflow outbox dead --group` says what they died of; then retry or discard them" if seen.dead else ""
    return Finding("dead letters", found, remedy)


def under_way(seen: Mapping[str, Any]) -> tuple[Finding, Finding]:
    """Judge aggregates that wait for a person, and events that are at work for very long."""
    blocked = Finding(
        "blocked aggregates",
        f"{seen['blocked']} wait for a dead event of theirs",
        f"`intelliflow outbox show {seen['blocking']}`, then retry or discard it" if seen["blocked"] else "",
    )
    slow = Finding(
        "under way",
        f"{seen['long']} events for more than {LONG_UNDER_WAY_SECONDS / 60:.0f} minutes",
        f"`intelliflow outbox show {seen['example']}` says where its job is" if seen["long"] else "",
    )
    return blocked, slow


def partitions(seen: Mapping[str, Any]) -> Finding:
    """Judge whether every partition has an owner."""
    found = f"{seen['relays']} relays, {seen['ownerless']} of {seen['partitions']} partitions without an owner"
    if seen["partitions"] and not seen["ownerless"]:
        return Finding("partitions", found)
    return Finding("partitions", found, "start an events-worker, or wait 15 s if one has just died")


def indexes(seen: Sequence[Index]) -> Finding:
    """Judge indexes that were not finished, and those that grew far beyond what they hold."""
    if broken := [index.name for index in seen if not index.valid]:
        names = ", ".join(broken)
        return Finding("indexes", f"not valid: {names}", f"`REINDEX INDEX CONCURRENTLY {broken[0]}`")
    if bloated := [index for index in seen if is_bloated(index)]:
        found = ", ".join(f"{index.name} has {megabytes(index.bytes)} for {index.entries} entries" for index in bloated)
        return Finding("indexes", found, f"`REINDEX INDEX CONCURRENTLY {bloated[0].name}`")
    return Finding("indexes", f"{len(seen)} valid, {megabytes(sum(index.bytes for index in seen))} in all")


def is_bloated(index: Index) -> bool:
    """Tell whether an index is large, and mostly empty."""
    return index.bytes > LARGE_INDEX_BYTES and index.bytes > index.entries * BLOATED_BYTES_PER_ENTRY


def vacuums(seen: Sequence[Vacuum]) -> Finding:
    """Judge whether dead rows are cleaned away."""
    bad = [table for table in seen if table.dead > max(MANY_DEAD_ROWS, DEAD_RATIO * table.live)]
    if not bad:
        return Finding("vacuum", f"{sum(table.dead for table in seen)} dead rows")
    found = ", ".join(f"{table.name} has {table.dead} dead rows, vacuumed {_ago(table.seconds)}" for table in bad)
    return Finding("vacuum", found, f"end old transactions, then `VACUUM (ANALYZE) {bad[0].name}`")


def transaction(seen: Mapping[str, Any] | None) -> Finding:
    """Judge the oldest open transaction: while it lasts, no row that died since can be cleaned away."""
    if seen is None:
        return Finding("oldest transaction", "none is open")
    found = f"{seen['holder']} for {seen['seconds']:.0f} s, {seen['state']}"
    if seen["seconds"] < LONG_TRANSACTION_SECONDS:
        return Finding("oldest transaction", found)
    remedy = "its events are not seen and no dead row is cleaned away until it ends: commit it, or pg_terminate_backend"
    return Finding("oldest transaction", found, remedy)


def clock(database: float, here: float, uncertainty: float) -> Finding:
    """Judge the difference of two clocks, in seconds; jobs are due by the workers' clocks."""
    apart = database - here
    found = f"PostgreSQL's is {apart:+.3f} s from this machine's (to {uncertainty:.3f} s)"
    needed = abs(apart) > MOST_CLOCK_SECONDS + uncertainty
    return Finding("clock", found, "synchronise both with NTP: retries and delays are due by clocks" if needed else "")


def archive(seen: Mapping[str, Any]) -> Finding:
    """Judge the archive's size."""
    found = f"about {seen['events']} events, {megabytes(seen['bytes'])}"
    large = seen["bytes"] > LARGE_ARCHIVE_BYTES
    return Finding("archive", found, "set OUTBOX_ARCHIVE_PURGE_DAYS, or move old rows elsewhere" if large else "")


def endpoints(seen: Mapping[str, Any]) -> Finding:
    """Judge endpoints that take no webhooks any more though nobody said so."""
    remedy = f"tell the tenant, then `intelliflow endpoints enable {seen['example']}`" if seen["endpoints"] else ""
    return Finding("endpoints", f"{seen['endpoints']} disabled because they failed", remedy)


def deliveries(seen: Mapping[str, Any]) -> Finding:
    """Judge deliveries that were begun and never ended."""
    found = f"{seen['deliveries']} begun by a worker that died, and not taken up"
    remedy = f"`intelliflow deliveries show {seen['example']}`, then replay it" if seen["deliveries"] else ""
    return Finding("deliveries", found, remedy)


def documents(seen: Mapping[str, Any]) -> tuple[Finding, Finding]:
    """Judge documents that are not read for very long, and those that killed the process which read them."""
    late = Finding(
        "documents",
        f"{seen['late']} begun or waiting for OCR for more than {LONG_UNREAD_SECONDS / 60:.0f} minutes",
        f"`intelliflow documents show {seen['example']}`; are their queues worked?" if seen["late"] else "",
    )
    lethal = Finding(
        "lethal documents",
        f"{seen['lethal']} killed who read them, in the last day",
        "`intelliflow documents list --group --newer-than 1d`: raise limits, or report them" if seen["lethal"] else "",
    )
    return late, lethal


def megabytes(size: int) -> str:
    """Write a size for people."""
    return f"{size / 2**20:.0f} MiB"


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds / 60:.0f} minutes ago"
