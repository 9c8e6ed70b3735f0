"""Who owns which partition of the aggregates: leases with tokens, shared out fairly among the relays that live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worker_runtime.postgres import Database

# Held until the end of the transaction, so that instances that start together agree.
RECORD_ALONE = "LOCK TABLE domain_event_partition IN SHARE ROW EXCLUSIVE MODE"
RECORD = """
INSERT INTO domain_event_partition (partition)
SELECT generate_series(0, $1::int - 1) WHERE NOT EXISTS (SELECT FROM domain_event_partition)
"""
RECORDED = "SELECT count(*) FROM domain_event_partition"

SEEN = """
INSERT INTO domain_event_relay (instance, seen_until) VALUES ($1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (instance) DO UPDATE SET seen_until = EXCLUDED.seen_until
"""
DIED = "DELETE FROM domain_event_relay WHERE seen_until < clock_timestamp() - interval '1 hour'"
# Rounded up, or some partition would be nobody's.
FAIR_SHARE = """
SELECT ceil((SELECT count(*) FROM domain_event_partition)::numeric
            / (SELECT count(*) FROM domain_event_relay WHERE seen_until > clock_timestamp()))::int
"""
# A lease that ran out while nobody noticed is ours still; one that somebody took is not.
RENEW = """
UPDATE domain_event_partition SET lease_until = clock_timestamp() + make_interval(secs => $2) WHERE owner = $1
RETURNING partition, token
"""
RELEASE = """
UPDATE domain_event_partition SET owner = NULL, lease_until = '-infinity' WHERE owner = $1 AND partition = ANY ($2)
"""
TAKE = """
UPDATE domain_event_partition
   SET owner = $1, token = token + 1, lease_until = clock_timestamp() + make_interval(secs => $2)
 WHERE partition = ANY (ARRAY(
       SELECT partition
         FROM domain_event_partition
        WHERE lease_until < clock_timestamp()
        ORDER BY random()
        LIMIT $3
          FOR UPDATE SKIP LOCKED))
RETURNING partition, token
"""
LEAVE = "DELETE FROM domain_event_relay WHERE instance = $1"


class PartitionsDiffer(Exception):
    """OUTBOX_PARTITIONS is not what the database was first used with."""


@dataclass(frozen=True, slots=True)
class Share:
    """The partitions that are ours, each with its token, and those of them that were not before."""

    tokens: Mapping[int, int]
    taken: frozenset[int]


class PartitionStore:
    """The leases, as one instance sees them. `instance` names one process for as long as it lives.

    Every method raises `DatabaseUnavailable` for what time may cure.
    """

    def __init__(self, database: Database, instance: str, lease_seconds: float) -> None:
        self._database = database
        self._instance = instance
        self._lease_seconds = lease_seconds

    async def record(self, partitions: int) -> None:
        """Write down how many partitions there are, the first time; raises `PartitionsDiffer` for another number."""
        async with self._database.transaction() as connection:
            await connection.execute(RECORD_ALONE)
            await connection.execute(RECORD, partitions)
            recorded = await connection.fetchval(RECORDED)
        if recorded != partitions:
            raise PartitionsDiffer(
                f"OUTBOX_PARTITIONS is {partitions}, and this outbox is divided into {recorded}; set it to {recorded}, "
                "or stop every events-worker, run `DELETE FROM domain_event_partition`, start them again"
            )

    async def balance(self, held: Iterable[int]) -> Share:
        """Renew our leases, give up what is beyond our fair share, and take what is free up to it."""
        before = set(held)
        async with self._database.transaction() as connection:
            await connection.execute(SEEN, self._instance, self._lease_seconds)
            await connection.execute(DIED)
            fair: int = await connection.fetchval(FAIR_SHARE)
            tokens = dict(await connection.fetch(RENEW, self._instance, self._lease_seconds))
            if surplus := sorted(tokens)[fair:]:
                await connection.execute(RELEASE, self._instance, surplus)
            kept = {partition: token for partition, token in tokens.items() if partition not in surplus}
            if len(kept) < fair:
                kept |= dict(await connection.fetch(TAKE, self._instance, self._lease_seconds, fair - len(kept)))
        return Share(kept, frozenset(kept.keys() - before))

    async def leave(self, held: Iterable[int]) -> None:
        """Give up everything, so that the others need not wait for the leases to run out."""
        async with self._database.transaction() as connection:
            await connection.execute(RELEASE, self._instance, list(held))
            await connection.execute(LEAVE, self._instance)
