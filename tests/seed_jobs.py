"""The job queue's runbook, word for word where it says what to type.

Under the headings that it has there. Where it is executed, `<job_id>` is replaced, as a person would.
"""

from __future__ import annotations

HEALTH = "./scripts/jobs/queue-stats.sh"
FAILED = """
# List recent failures
./scripts/jobs/list-failed.sh

# Get details on a specific job
./scripts/jobs/job-status.sh 123
"""
RETRY = """
# Retry a single job
./scripts/jobs/retry-job.sh 123

# Retry all failed jobs in a queue
./scripts/jobs/retry-all-failed.sh email

# Retry ALL failed jobs (use carefully)
./scripts/jobs/retry-all-failed.sh
"""
PURGE = """
# Purge succeeded jobs older than 30 days
./scripts/jobs/purge-old.sh 30

# Also purge old failed jobs (after investigation)
./scripts/jobs/purge-old.sh 90 --include-failed
"""
APPLY_SCHEMA = "./scripts/jobs/apply-schema.sh"
CONNECT = "psql $JOB_QUEUE_DATABASE_URL"
# Every line of the quick reference: what it is for, and what is typed.
QUICK_REFERENCE = """
| View queue stats | `./scripts/jobs/queue-stats.sh` |
| List failed jobs | `./scripts/jobs/list-failed.sh` |
| Get job details | `./scripts/jobs/job-status.sh <id>` |
| Retry single job | `./scripts/jobs/retry-job.sh <id>` |
| Retry all failed | `./scripts/jobs/retry-all-failed.sh [queue]` |
| Purge old jobs | `./scripts/jobs/purge-old.sh <days>` |
| Apply schema | `./scripts/jobs/apply-schema.sh` |
"""

INSPECTION = """
-- Jobs stuck in 'doing' for >5 minutes (potentially stalled)
SELECT * FROM procrastinate_jobs
WHERE status = 'doing'
  AND started_at < NOW() - INTERVAL '5 minutes';

-- Recent errors by type
SELECT
    task_name,
    error,
    COUNT(*)
FROM procrastinate_jobs j
JOIN procrastinate_events e ON j.id = e.job_id
WHERE e.type = 'error'
  AND e.at > NOW() - INTERVAL '1 hour'
GROUP BY task_name, error;
"""
MONITORING = """
-- Failed jobs in last hour (for alerting)
SELECT COUNT(*) FROM procrastinate_jobs
WHERE status = 'failed'
  AND created_at > NOW() - INTERVAL '1 hour';

-- Queue depth by queue (for dashboards)
SELECT queue_name, COUNT(*) as pending
FROM procrastinate_jobs
WHERE status = 'todo'
GROUP BY queue_name;

-- Processing rate (jobs/hour)
SELECT COUNT(*) as processed_last_hour
FROM procrastinate_jobs
WHERE status = 'succeeded'
  AND created_at > NOW() - INTERVAL '1 hour';

-- Average processing time by task
SELECT
    task_name,
    AVG(EXTRACT(EPOCH FROM (finished_at - started_at))) as avg_duration_seconds
FROM procrastinate_jobs
WHERE status = 'succeeded'
  AND finished_at IS NOT NULL
GROUP BY task_name;
"""
CLEAR = """
DELETE FROM procrastinate_jobs WHERE status = 'todo';
"""
RESET = """
UPDATE procrastinate_jobs
SET status = 'todo', started_at = NULL
WHERE id = <job_id> AND status = 'doing';
"""
BULK_RESET = """
UPDATE procrastinate_jobs
SET status = 'todo', started_at = NULL
WHERE status = 'doing'
  AND started_at < NOW() - INTERVAL '10 minutes';
"""

SQL = (INSPECTION, MONITORING, CLEAR, RESET, BULK_RESET)
LINES = (HEALTH, FAILED, RETRY, PURGE, APPLY_SCHEMA, CONNECT)


def lines() -> list[str]:
    """Return every line that is typed in a shell."""
    typed = (line.strip() for block in LINES for line in block.splitlines())
    return [line for line in typed if line and not line.startswith("#")]
