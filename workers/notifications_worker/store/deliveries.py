"""The ledger in PostgreSQL: a row for each delivery, and one for each attempt.

Looks, begins and ends of all jobs that wait at a moment are one statement each, so that fifty jobs in flight cost about
one commit.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from notifications_worker.ledger import LEASE_SECONDS
from worker_runtime.batching import Batcher
from worker_runtime.delivery_state import AlreadySent, Doubtful, Free, InProgress
from worker_runtime.postgres import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from notifications_worker.ledger import Attempt, Closed, Sending
    from worker_runtime.delivery_state import Standing
    from worker_runtime.postgres import Database

MOST_TOGETHER = 100
# For whoever lost a race by a moment, and cannot see yet to whom.
SOON_SECONDS = 1.0

ASKED = """
asked AS MATERIALIZED (
    SELECT *
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
           WITH ORDINALITY AS asked (tenant_id, notification_id, channel, job, number)
)
"""
# What a row means to that job. Of an accepted one the state may have moved on by what the provider said later.
STANDING = """
       CASE WHEN known.accepted_at IS NOT NULL THEN 'sent'
            WHEN known.state = 'sending' AND known.job <> asked.job AND known.lease_until > clock_timestamp()
            THEN 'in progress'
            WHEN known.state = 'sending' OR known.doubtful_since IS NOT NULL THEN 'doubtful'
            ELSE 'free' END AS standing,
       extract(epoch FROM known.lease_until - clock_timestamp())::float8 AS seconds,
       extract(epoch FROM coalesce(known.doubtful_since, known.changed_at))::float8 AS since,
       extract(epoch FROM known.accepted_at)::float8 AS sent_at, known.provider_message_id
"""
LOOK = f"""
WITH {ASKED}
SELECT {STANDING}
  FROM asked LEFT JOIN notification_delivery AS known USING (tenant_id, notification_id, channel)
 ORDER BY asked.number
"""

# In the order of the key, so that two workers do not wait for each other. Of two jobs with one notification in one
# statement the second is told to wait. `known` is as it was when the statement began.
BEGIN = f"""
WITH {ASKED}, more AS (
    SELECT *
      FROM unnest($5::text[], $6::text[], $7::text[], $8::jsonb[])
           WITH ORDINALITY AS more (recipient, provider, event_id, payload, number)
), first AS (
    SELECT DISTINCT ON (tenant_id, notification_id, channel) *
      FROM asked JOIN more USING (number)
     ORDER BY tenant_id, notification_id, channel, number
), begun AS (
    INSERT INTO notification_delivery AS delivery
           (tenant_id, notification_id, channel, job, recipient, state, lease_until, provider, event_id, payload)
    SELECT tenant_id, notification_id, channel, job, recipient, 'sending',
           clock_timestamp() + make_interval(secs => $9), provider, event_id, payload
      FROM first
     ORDER BY tenant_id, notification_id, channel
        ON CONFLICT (tenant_id, notification_id, channel) DO UPDATE
       SET job = excluded.job, recipient = excluded.recipient, state = 'sending', lease_until = excluded.lease_until,
           provider = excluded.provider, payload = excluded.payload, changed_at = clock_timestamp(),
           doubtful_since = CASE WHEN delivery.state = 'sending'
                                 THEN coalesce(delivery.doubtful_since, delivery.changed_at)
                                 ELSE delivery.doubtful_since END
     WHERE delivery.accepted_at IS NULL
       AND (delivery.state <> 'sending' OR delivery.job = excluded.job OR delivery.lease_until <= clock_timestamp())
    RETURNING tenant_id, notification_id, channel, job, doubtful_since
)
SELECT begun.job IS NOT NULL AS ours, extract(epoch FROM begun.doubtful_since)::float8 AS doubtful, {STANDING}
  FROM asked
  LEFT JOIN begun USING (tenant_id, notification_id, channel, job)
  LEFT JOIN notification_delivery AS known USING (tenant_id, notification_id, channel)
 ORDER BY asked.number
"""

# What was accepted stays so, whoever has the right by now; anything else is said only by who has it. That nobody got
# the message does not end an earlier doubt.
END = f"""
WITH {ASKED}, more AS (
    SELECT *
      FROM unnest($5::integer[], $6::text[], $7::float8[], $8::integer[], $9::text[], $10::boolean[], $11::text[],
                  $12::text[], $13::text[], $14::jsonb[])
           WITH ORDINALITY AS more (attempt, provider, started_at, milliseconds, outcome, unsent, provider_message_id,
                                    code, reason, reply, number)
), said AS MATERIALIZED (
    SELECT *, to_timestamp(started_at) AS began
      FROM asked JOIN more USING (number)
), ended AS (
    UPDATE notification_delivery AS delivery
       SET state = CASE said.outcome WHEN 'accepted' THEN 'accepted' WHEN 'rejected' THEN 'dead' ELSE 'waiting' END,
           lease_until = NULL,
           accepted_at = CASE WHEN said.outcome = 'accepted' THEN clock_timestamp() END,
           doubtful_since = CASE WHEN said.unsent THEN delivery.doubtful_since
                                 WHEN said.outcome <> 'accepted' THEN coalesce(delivery.doubtful_since, said.began)
                                 END,
           attempts = delivery.attempts + 1, provider = said.provider, provider_message_id = said.provider_message_id,
           code = said.code, reason = said.reason, changed_at = clock_timestamp()
      FROM said
     WHERE (delivery.tenant_id, delivery.notification_id, delivery.channel)
           = (said.tenant_id, said.notification_id, said.channel)
       AND delivery.accepted_at IS NULL
       AND (said.outcome = 'accepted' OR delivery.job = said.job)
)
INSERT INTO notification_attempt
       (tenant_id, notification_id, channel, attempt, provider, started_at, milliseconds, outcome, code, reason,
        status, status_code, said, remote, signed_by)
SELECT tenant_id, notification_id, channel, attempt, provider, began, milliseconds, outcome, code, reason,
       (reply->>'status')::integer, reply->>'code', reply->>'text', reply->>'remote',
       ARRAY(SELECT jsonb_array_elements_text(reply->'signedBy'))
  FROM said
 WHERE NOT EXISTS (SELECT FROM notification_attempt AS known
                    WHERE (known.tenant_id, known.notification_id, known.channel)
                          = (said.tenant_id, said.notification_id, said.channel)
                      AND known.started_at = said.began AND known.provider = said.provider)
 ORDER BY number
"""

CLOSE = """
INSERT INTO notification_delivery AS delivery
       (tenant_id, notification_id, channel, job, recipient, state, code, reason, event_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (tenant_id, notification_id, channel) DO UPDATE
   SET job = excluded.job, state = excluded.state, code = excluded.code, reason = excluded.reason, lease_until = NULL,
       changed_at = clock_timestamp()
 WHERE delivery.accepted_at IS NULL
   AND (delivery.state <> 'sending' OR delivery.job = excluded.job OR delivery.lease_until <= clock_timestamp())
"""

BURIED = """
UPDATE notification_delivery
   SET state = 'dead', code = $2, reason = $3, lease_until = NULL, changed_at = clock_timestamp()
 WHERE job = $1 AND state IN ('sending', 'waiting')
"""


class PostgresLedger:
    """See `Ledger`. Raises `DatabaseUnavailable` for what time may cure."""

    def __init__(self, looks: Database, begins: Database, ends: Database) -> None:
        self._looks = looks
        self._begins = begins
        self._ends = ends
        self._look: Batcher[Sending, Standing] = Batcher(self._look_together, MOST_TOGETHER)
        self._begin: Batcher[tuple[Sending, str], Standing] = Batcher(self._begin_together, MOST_TOGETHER)
        self._end: Batcher[tuple[Sending, Attempt], None] = Batcher(self._end_together, MOST_TOGETHER)

    async def look(self, sending: Sending) -> Standing:
        """See `Ledger`."""
        return await self._look(sending)

    async def begin(self, sending: Sending, provider: str) -> Standing:
        """See `Ledger`."""
        return await self._begin((sending, provider))

    async def ended(self, sending: Sending, attempt: Attempt) -> None:
        """See `Ledger`."""
        await self._end((sending, attempt))

    async def close(self, sending: Sending, end: Closed) -> None:
        """See `Ledger`."""
        told = (
            sending.job,
            storable(sending.recipient),
            end.state,
            end.code,
            storable(end.reason),
            storable_or_none(sending.event_id),
        )
        async with self._ends.connected() as connection:
            await connection.execute(CLOSE, *map(storable, sending.delivery), *told)

    async def buried(self, job: str, code: str, reason: str) -> None:
        """See `Ledger`."""
        async with self._ends.connected() as connection:
            await connection.execute(BURIED, job, code, storable(reason))

    async def _look_together(self, asked: Sequence[Sending]) -> list[Standing]:
        async with self._looks.connected() as connection:
            rows = await connection.fetch(LOOK, *asking(asked))
        return [standing_of(row) for row in rows]

    async def _begin_together(self, asked: Sequence[tuple[Sending, str]]) -> list[Standing]:
        sendings = [sending for sending, _ in asked]
        more = (
            [storable(one.recipient) for one in sendings],
            [provider for _, provider in asked],
            [storable_or_none(one.event_id) for one in sendings],
            [as_jsonb(one.payload) for one in sendings],
        )
        async with self._begins.connected() as connection:
            rows = await connection.fetch(BEGIN, *asking(sendings), *more, LEASE_SECONDS)
        return [begun_of(row) for row in rows]

    async def _end_together(self, said: Sequence[tuple[Sending, Attempt]]) -> list[None]:
        attempts = [attempt for _, attempt in said]
        more = (
            [sending.attempt for sending, _ in said],
            [one.provider for one in attempts],
            [one.started_at for one in attempts],
            [round(one.seconds * 1000) for one in attempts],
            [one.outcome for one in attempts],
            [one.unsent for one in attempts],
            [storable_or_none(one.provider_message_id) for one in attempts],
            [one.code for one in attempts],
            [storable_or_none(one.reason) for one in attempts],
            [as_jsonb(reply_of(one)) for one in attempts],
        )
        async with self._ends.connected() as connection:
            await connection.execute(END, *asking([sending for sending, _ in said]), *more)
        return [None] * len(said)


def storable_or_none(text: str | None) -> str | None:
    """Return text that may be missing as PostgreSQL can hold it."""
    return None if text is None else storable(text)


def asking(sendings: Sequence[Sending]) -> tuple[list[str], ...]:
    """Return the columns of `ASKED`."""
    ids = [sending.delivery for sending in sendings]
    return (
        [storable(one.tenant) for one in ids],
        [storable(one.notification) for one in ids],
        [one.channel for one in ids],
        [storable(sending.job) for sending in sendings],
    )


def standing_of(row: asyncpg.Record) -> Standing:
    """Read `STANDING`."""
    match row["standing"]:
        case "sent":
            return AlreadySent(row["provider_message_id"] or "", row["sent_at"])
        case "in progress":
            return InProgress(max(0.0, row["seconds"]))
        case "doubtful":
            return Doubtful(row["since"])
        case _:
            return Free()


def begun_of(row: asyncpg.Record) -> Standing:
    """Read a row of `BEGIN`: ours, or what keeps it from being ours."""
    if row["ours"]:
        return Free() if row["doubtful"] is None else Doubtful(row["doubtful"])
    standing = standing_of(row)
    return standing if isinstance(standing, (AlreadySent, InProgress)) else InProgress(SOON_SECONDS)


def reply_of(attempt: Attempt) -> dict[str, Any] | None:
    """Return what the provider said, as `END` reads it."""
    reply = attempt.reply
    if reply is None:
        return None
    return {
        "status": reply.status,
        "code": reply.code,
        "text": storable(reply.text),
        "remote": reply.remote,
        "signedBy": list(reply.signed_by),
    }


def as_jsonb(value: dict[str, Any] | None) -> str | None:
    """Write JSON as PostgreSQL takes it: it refuses the escape of a NUL, and half a surrogate pair."""
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode().replace("\\u0000", "\\ufffd")
