"""The SQL of the runbook and the admin guide that this worker has to keep the promises of, word for word.

Under the headings that it has there. Where it is executed, `<org_id>` and `:msg_id` are replaced, as a person would.
"""

from __future__ import annotations

import re

SAFE_PAUSE = """
-- Unschedule the cron job
SELECT cron.unschedule('process-workflow-queue');

-- Verify it's removed
SELECT * FROM cron.job WHERE jobname = 'process-workflow-queue';
"""
RESUME = """
SELECT cron.schedule(
  'process-workflow-queue',
  '* * * * *',
  $$SELECT util.invoke_edge_function('workflow-executor-worker', '{}'::jsonb);$$
);
"""
RESET_STUCK_SEMAPHORE = """
-- Check which orgs are stuck
SELECT organization_id, worker_running, worker_last_run_at
FROM fw_module_settings
WHERE worker_running = true;

-- Reset for a specific org
UPDATE fw_module_settings
SET worker_running = false
WHERE organization_id = '<org_id>'
  AND worker_running = true;

-- Reset all stuck semaphores (use with caution)
UPDATE fw_module_settings
SET worker_running = false
WHERE worker_running = true
  AND worker_last_run_at < now() - interval '5 minutes';
"""
BACKLOG = """
-- Total pending messages
SELECT count(*) FROM pgmq.q_workflow_execution_queue WHERE vt <= now();

-- Messages by org
SELECT message->>'organization_id' AS org_id, count(*)
FROM pgmq.q_workflow_execution_queue
WHERE vt <= now()
GROUP BY 1
ORDER BY 2 DESC;

-- Oldest unprocessed message
SELECT msg_id, enqueued_at, message->>'execution_id' AS execution_id
FROM pgmq.q_workflow_execution_queue
WHERE vt <= now()
ORDER BY enqueued_at ASC
LIMIT 1;
"""
FAILURES = """
-- Recent failed executions
SELECT id, rule_id, organization_id, status, retry_count, last_error,\x20
       next_retry_at, started_at, completed_at
FROM fw_workflow_executions
WHERE status IN ('failed', 'retry_pending')
ORDER BY completed_at DESC NULLS LAST
LIMIT 20;

-- DLQ contents
SELECT msg_id, enqueued_at,
       message->>'execution_id' AS execution_id,
       message->>'error' AS error,
       message->>'total_attempts' AS attempts
FROM pgmq.q_workflow_dlq
ORDER BY enqueued_at DESC
LIMIT 20;
"""
EMERGENCY = """
UPDATE fw_module_settings
SET fw_execution_worker_enabled = false, worker_running = false;

SELECT cron.unschedule('process-workflow-queue');
"""
# Four steps of a list, each a line.
ROLLBACK = """
SELECT cron.unschedule('process-workflow-queue');
UPDATE fw_module_settings SET fw_execution_worker_enabled = false, worker_running = false;
SELECT pgmq.purge_queue('workflow_execution_queue'); SELECT pgmq.purge_queue('workflow_dlq');
UPDATE fw_workflow_executions SET status = 'failed', last_error = 'Worker rollback' WHERE status IN ('queued', 'retry_pending', 'running');
"""  # noqa: E501  word for word
HEALTH = """
-- Worker last run times
SELECT organization_id, worker_last_run_at, worker_last_batch_size,
       now() - worker_last_run_at AS time_since_last_run
FROM fw_module_settings
WHERE fw_execution_worker_enabled = true
ORDER BY worker_last_run_at DESC NULLS LAST;

-- Cron job status
SELECT jobid, jobname, schedule, active
FROM cron.job
WHERE jobname = 'process-workflow-queue';
"""
QUEUE_DEPTH = """
SELECT count(*) AS pending_messages
FROM pgmq.q_workflow_execution_queue
WHERE vt <= now();
"""
DEAD_LETTERS = """
SELECT count(*) AS dlq_messages
FROM pgmq.q_workflow_dlq;

-- View DLQ message details
SELECT msg_id, enqueued_at, message->>'execution_id' AS execution_id,
       message->>'error' AS error, message->>'failed_at' AS failed_at
FROM pgmq.q_workflow_dlq
ORDER BY enqueued_at DESC
LIMIT 20;
"""
RUN_HISTORY = """
SELECT organization_id, worker_running, worker_last_run_at, worker_last_batch_size
FROM fw_module_settings
WHERE fw_execution_worker_enabled = true;
"""
DEAD_LETTER_RETRY = """
-- Move a message back to the main queue
WITH dlq_msg AS (
  SELECT msg_id, message FROM pgmq.q_workflow_dlq WHERE msg_id = :msg_id
)
SELECT pgmq.send('workflow_execution_queue',\x20
  jsonb_set(message, '{attempt}', '1'::jsonb)
) FROM dlq_msg;

-- Then delete from DLQ
SELECT pgmq.delete('workflow_dlq', :msg_id);
"""
PURGE_OLD_DEAD_LETTERS = """
DELETE FROM pgmq.q_workflow_dlq
WHERE enqueued_at < now() - interval '30 days';
"""

RUNBOOK = (SAFE_PAUSE, RESUME, RESET_STUCK_SEMAPHORE, BACKLOG, FAILURES, EMERGENCY, ROLLBACK, HEALTH)
GUIDE = (QUEUE_DEPTH, DEAD_LETTERS, RUN_HISTORY, DEAD_LETTER_RETRY, PURGE_OLD_DEAD_LETTERS)

# How many there are of them: 20 in the runbook, 7 in the guide.
STATEMENTS = 27

STATEMENT = re.compile(r"((?:\$\$.*?\$\$|--[^\n]*\n|'[^']*'|[^;])+;)", re.DOTALL)


def statements(block: str, **given: object) -> list[str]:
    """Take a block apart at its semicolons; `org_id` and `msg_id` are what a person would fill in.

    Raises `ValueError` for text that is no statement, and would be left out.
    """
    filled = block.replace("<org_id>", str(given.get("org_id", ""))).replace(":msg_id", str(given.get("msg_id", "")))
    if left := STATEMENT.sub("", filled).strip():
        raise ValueError(f"{left!r} does not end with a semicolon")
    return [statement.strip() for statement in STATEMENT.findall(filled)]
