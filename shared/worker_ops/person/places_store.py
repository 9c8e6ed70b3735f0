"""The tables that may hold a person's address, and how one is taken out of each."""

from __future__ import annotations

from dataclasses import dataclass

# $1 to $5 of every statement: from this row's place to that one's, the addresses, the tenant, the jobs at work.
NOBODY_IS_AT_IT = "$5::text[] IS NULL"
# The writer's, the relay's and the handlers'. A dead letter is nobody's, unless the order of its aggregate hangs on it.
UNDER_WAY = """EXISTS (SELECT FROM domain_event_under_way AS busy WHERE busy.event_id = held.id
               AND (busy.dead_reason IS NULL OR held.aggregate_id ~* $3::text))"""
TENANT_OF_EVENT = """coalesce((SELECT tenant_id FROM domain_event_outbox AS event WHERE event.id = held.event_id),
               (SELECT tenant_id FROM domain_event_outbox_archive AS event WHERE event.id = held.event_id LIMIT 1))"""
UNSENT = "state IN ('sending', 'waiting')"


@dataclass(frozen=True, slots=True)
class Place:
    """A table. `texts` and `json` are its columns that may hold an address; of `whole` nothing is left but NULL.

    `busy`: an SQL condition for a row that somebody works on. `also`: further columns an erased row gets. `apart`: what
    is written behind an erased text where no two may be alike.
    """

    table: str
    key: str
    texts: tuple[str, ...] = ()
    json: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    busy: str = NOBODY_IS_AT_IT
    tenant: str = "held.tenant_id"
    also: str = ""
    apart: str = "''"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that may hold an address."""
        return (*self.whole, *self.texts, *self.json)

    @property
    def find(self) -> str:
        """Return the statement that finds rows within a stretch of the table's pages."""
        held = " OR ".join(f"held.{column}::text ~* $3::text" for column in self.columns)
        columns = ", ".join(f"held.{column}::text AS {column}" for column in self.columns)
        return f"""
SELECT held.ctid AS place, {self.key} AS key, coalesce({self.busy}, false) AS busy, {columns}
  FROM {self.table} AS held
 WHERE held.ctid >= $1::tid AND held.ctid < $2::tid AND ({held})
   AND ($4::text IS NULL OR {self.tenant} = $4) AND ($5::text[] IS NOT NULL)
"""

    @property
    def lock(self) -> str:
        """Return the statement that finds and locks those that nobody works on."""
        return f"{self.find} AND NOT coalesce({self.busy}, false) FOR UPDATE OF held SKIP LOCKED"

    @property
    def erase(self) -> str:
        """Return the statement that writes one row: its place, then its columns."""
        sets = [f"{column} = {self._written(column, number)}" for number, column in enumerate(self.columns, 2)]
        return f"UPDATE {self.table} SET {', '.join([*sets, *filter(None, [self.also])])} WHERE ctid = $1"

    def _written(self, column: str, number: int) -> str:
        return f"${number}::jsonb" if column in self.json else f"${number}::text || {self.apart}"


EVENT_TEXTS, EVENT_JSON = ("aggregate_id", "last_error"), ("payload", "metadata")
BEING_SENT = f"""(held.state = 'sending' AND held.lease_until > clock_timestamp())
               OR (held.{UNSENT} AND held.job = ANY ($5))"""
NOT_TO_BE_SENT = f"""state = CASE WHEN {UNSENT} THEN 'dropped' ELSE state END,
       code = CASE WHEN {UNSENT} THEN 'ERASED' ELSE code END"""
PENDING = f"held.status = 'pending' OR held.processed_at IS NULL OR {UNDER_WAY}"
# Somebody may work on it at any moment, with what it was given and what its steps came to.
NOT_OVER = "held.status IN ('queued', 'running', 'waiting', 'retry_pending')"
STEP_OF_UNFINISHED = """EXISTS (SELECT FROM fw_workflow_executions AS execution WHERE execution.id = held.execution_id
               AND execution.status IN ('queued', 'running', 'waiting', 'retry_pending'))"""
TENANT_OF_STEP = "(SELECT organization_id FROM fw_workflow_executions AS whole WHERE whole.id = held.execution_id)"
TENANT_OF_DEFINITION = "(SELECT organization_id FROM fw_workflow_rules AS whole WHERE whole.id = held.rule_id)"
AWAITED = """EXISTS (SELECT FROM fw_workflow_waits AS wait WHERE wait.organization_id = held.organization_id
               AND wait.event_name = held.event_name AND wait.correlation = held.correlation)"""
ALWAYS = "$5::text[] IS NOT NULL"
TENANT_OF_MESSAGE = "(held.message->>'organization_id')"
# The outbox before the archive, a queue before its own: what moves meanwhile, moves that way.
PLACES = (
    Place(
        "notification_delivery",
        "concat_ws(' ', held.tenant_id, held.notification_id, held.channel)",
        whole=("recipient",),
        texts=("reason",),
        json=("payload",),
        busy=BEING_SENT,
        also=NOT_TO_BE_SENT,
    ),
    Place(
        "notification_attempt",
        "concat_ws(' ', held.tenant_id, held.notification_id, held.channel)",
        texts=("reason", "said"),
    ),
    Place(
        "notification_suppression",
        "concat_ws(' ', held.tenant_id, held.channel, held.fingerprint)",
        whole=("address",),
    ),
    Place("notification_edit", "held.number::text", texts=("reason",)),
    Place(
        "document",
        "concat_ws(' ', held.tenant_id, held.document_id)",
        texts=("source", "explanation"),
        json=("metadata",),
    ),
    Place("document_page", "concat_ws(' ', held.tenant_id, held.document_id, held.number)", texts=("text",)),
    Place("document_chunk", "concat_ws(' ', held.tenant_id, held.document_id, held.number)", texts=("text",)),
    Place(
        "domain_event_outbox",
        "held.id::text",
        texts=EVENT_TEXTS,
        json=EVENT_JSON,
        busy=PENDING,
    ),
    Place(
        "domain_event_outbox_archive",
        "held.id::text",
        texts=EVENT_TEXTS,
        json=EVENT_JSON,
        busy=UNDER_WAY,
        also="aggregate_hash = hashtext(aggregate_type || ':' || $2::text)",
    ),
    Place(
        "domain_event_edit",
        "held.event_id::text",
        texts=("error_before", "reason"),
        json=("payload_before",),
        tenant=TENANT_OF_EVENT,
    ),
    Place("domain_event_under_way", "held.event_id::text", texts=("dead_reason",), tenant=TENANT_OF_EVENT),
    Place(
        "fw_workflow_executions",
        "held.id::text",
        texts=("last_error",),
        json=("input", "result"),
        busy=NOT_OVER,
        tenant="held.organization_id",
    ),
    # A key that is an address is given up with it: it is no reason to keep the address.
    Place(
        "fw_workflow_executions",
        "held.id::text",
        whole=("idempotency_key",),
        busy=NOT_OVER,
        tenant="held.organization_id",
    ),
    Place(
        "fw_workflow_steps",
        "concat_ws(' ', held.execution_id, held.step)",
        texts=("error",),
        json=("output",),
        busy=STEP_OF_UNFINISHED,
        tenant=TENANT_OF_STEP,
    ),
    Place(
        "fw_workflow_signals",
        "held.id::text",
        texts=("correlation",),
        json=("payload",),
        busy=AWAITED,
        tenant="held.organization_id",
    ),
    Place("fw_workflow_signals", "held.id::text", whole=("idempotency_key",), tenant="held.organization_id"),
    Place(
        "fw_workflow_waits",
        "concat_ws(' ', held.execution_id, held.step)",
        texts=("correlation",),
        busy=ALWAYS,
        tenant="held.organization_id",
    ),
    # A version never changes: a person who stands in one is reported, for somebody to save one without.
    Place(
        "fw_workflow_definitions",
        "concat_ws(' ', held.rule_id, held.version)",
        json=("definition",),
        busy=ALWAYS,
        tenant=TENANT_OF_DEFINITION,
    ),
    *(
        Place(f"pgmq.{table}", "held.msg_id::text", json=("message",), tenant=TENANT_OF_MESSAGE)
        for table in ("q_workflow_execution_queue", "a_workflow_execution_queue", "q_workflow_dlq", "a_workflow_dlq")
    ),
)
# In the jobs database. A job that is not over may be begun at any moment, with what it was given.
JOB_NOT_OVER = "held.status IN ('todo', 'doing')"
OF_THE_JOB = "FROM procrastinate_jobs AS job WHERE job.id = held.job_id"
TENANT_IN_ARGS = "coalesce({0}.args->>'tenantId', {0}.args->>'tenant_id')"
TENANT_OF_JOB = f"(SELECT {TENANT_IN_ARGS.format('job')} {OF_THE_JOB})"
BUSY_JOB = f"EXISTS (SELECT {OF_THE_JOB} AND job.status IN ('todo', 'doing'))"
JOB_PLACES = (
    Place(
        "procrastinate_jobs",
        "held.id::text",
        texts=("lock", "queueing_lock"),
        json=("args",),
        busy=JOB_NOT_OVER,
        tenant=TENANT_IN_ARGS.format("held"),
    ),
    Place(
        "procrastinate_events",
        "held.job_id::text",
        texts=("error", "error_traceback"),
        busy=BUSY_JOB,
        tenant=TENANT_OF_JOB,
    ),
    # A key that is an address is given up with it, and another's must not become the same.
    Place(
        "jobs_ops.deferrals",
        "held.job_id::text",
        texts=("key",),
        busy=BUSY_JOB,
        tenant=TENANT_OF_JOB,
        apart="' ' || job_id",
    ),
)
