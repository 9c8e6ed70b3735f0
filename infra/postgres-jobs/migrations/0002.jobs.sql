-- What operators ask for and Procrastinate does not keep: when a job was made, begun and ended, and why it failed.
-- The columns stand on Procrastinate's own tables, where the runbook and every dashboard look for them, and triggers
-- keep them whoever changes a job: its own functions are untouched (docs/explanation/adr/0011-job-columns.md).
-- depends: 0001.error-events

CREATE SCHEMA IF NOT EXISTS jobs_ops;
COMMENT ON SCHEMA jobs_ops IS 'Functions of the jobs-worker, made by `intelliflow jobs migrate`';

ALTER TABLE procrastinate_jobs
    -- Of jobs that are older than this column, the moment of the migration.
    ADD COLUMN IF NOT EXISTS created_at  timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS started_at  timestamptz,
    ADD COLUMN IF NOT EXISTS finished_at timestamptz,
    -- How many workers have vanished with it since somebody last asked for it.
    ADD COLUMN IF NOT EXISTS stalls      smallint NOT NULL DEFAULT 0;

ALTER TABLE procrastinate_events
    ADD COLUMN IF NOT EXISTS error           text,
    ADD COLUMN IF NOT EXISTS error_traceback text,
    ADD COLUMN IF NOT EXISTS attempt         integer;

-- Every job is updated twice: the space for that is beside it, and dead rows do not wait for a fifth of the table.
ALTER TABLE procrastinate_jobs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE procrastinate_events SET (autovacuum_vacuum_insert_scale_factor = 0.1);

CREATE INDEX IF NOT EXISTS jobs_ops_doing ON procrastinate_jobs (started_at) WHERE status = 'doing';
CREATE INDEX IF NOT EXISTS jobs_ops_failed ON procrastinate_jobs (created_at) WHERE status = 'failed';
CREATE INDEX IF NOT EXISTS jobs_ops_finished ON procrastinate_jobs (status, finished_at) WHERE finished_at IS NOT NULL;
-- A worker that leaves makes PostgreSQL look for its jobs: Procrastinate's own index cannot answer that.
CREATE INDEX IF NOT EXISTS jobs_ops_worker ON procrastinate_jobs (worker_id) WHERE worker_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_ops_created ON procrastinate_jobs USING brin (created_at);
CREATE INDEX IF NOT EXISTS jobs_ops_errors ON procrastinate_events (at) WHERE type = 'error';

CREATE OR REPLACE FUNCTION jobs_ops.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE NEW.status
        WHEN 'doing' THEN
            -- A time that somebody gives along stays.
            IF NEW.started_at IS NOT DISTINCT FROM OLD.started_at THEN
                NEW.started_at := clock_timestamp();
            END IF;
            NEW.finished_at := NULL;
        WHEN 'todo' THEN
            -- Also when an operator says so in SQL: whoever has it may not settle it any more.
            NEW.started_at := NULL;
            NEW.finished_at := NULL;
            NEW.worker_id := NULL;
            NEW.abort_requested := false;
            IF OLD.status <> 'doing' THEN
                NEW.stalls := 0;
            END IF;
        ELSE
            IF NEW.finished_at IS NOT DISTINCT FROM OLD.finished_at THEN
                NEW.finished_at := clock_timestamp();
            END IF;
            NEW.worker_id := NULL;
    END CASE;
    RETURN NEW;
END $$;

-- A job that is written down by hand, or copied from elsewhere, when it was begun or over already.
CREATE OR REPLACE FUNCTION jobs_ops.stamp_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'doing' THEN
        NEW.started_at := coalesce(NEW.started_at, clock_timestamp());
    ELSE
        NEW.finished_at := coalesce(NEW.finished_at, clock_timestamp());
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER jobs_ops_stamp BEFORE UPDATE OF status ON procrastinate_jobs
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION jobs_ops.stamp();

CREATE OR REPLACE TRIGGER jobs_ops_stamp_written BEFORE INSERT ON procrastinate_jobs
    FOR EACH ROW WHEN (NEW.status <> 'todo') EXECUTE FUNCTION jobs_ops.stamp_written();

-- Who asks wants to hear of a job that may run again, too, not only of a new one.
CREATE OR REPLACE TRIGGER jobs_ops_notify AFTER UPDATE OF status ON procrastinate_jobs
    FOR EACH ROW WHEN (NEW.status = 'todo' AND OLD.status <> 'todo' AND NEW.scheduled_at IS NULL)
    EXECUTE FUNCTION procrastinate_notify_queue_job_inserted_v1();

-- Up to `most` jobs, each fetched by Procrastinate's own function with its rules of locks and priorities. A `started_at`
-- is the token of its holder.
CREATE OR REPLACE FUNCTION jobs_ops.claim(queues varchar[], worker bigint, most integer)
    RETURNS SETOF procrastinate_jobs LANGUAGE plpgsql AS $$
DECLARE
    job procrastinate_jobs;
BEGIN
    FOR _ IN 1..most LOOP
        job := procrastinate_fetch_job_v2(queues, worker);
        EXIT WHEN job.id IS NULL;
        RETURN NEXT job;
    END LOOP;
END $$;

-- How an attempt ended. `status` todo is another attempt at `retry_at`; `costs` false gives the attempt back.
DO $$ BEGIN
    IF to_regtype('jobs_ops.ending') IS NULL THEN
        CREATE TYPE jobs_ops.ending AS (
            id bigint, started_at timestamptz, status procrastinate_job_status, costs boolean,
            retry_at timestamptz, priority integer, queue varchar, lock varchar, error text, error_traceback text
        );
    END IF;
END $$;

-- Settles what `worker` still holds and returns the ids of it; said again, it is the same. A job that has been taken
-- from the worker meanwhile is left alone.
CREATE OR REPLACE FUNCTION jobs_ops.settle(worker bigint, endings jobs_ops.ending[])
    RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    ending jobs_ops.ending;
    job    procrastinate_jobs;
BEGIN
    FOREACH ending IN ARRAY endings LOOP
        SELECT * INTO job FROM procrastinate_jobs
            WHERE procrastinate_jobs.id = ending.id AND procrastinate_jobs.started_at = ending.started_at FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF job.status = 'doing' AND job.worker_id = worker THEN
            IF ending.error IS NOT NULL THEN
                INSERT INTO procrastinate_events (job_id, type, error, error_traceback, attempt)
                    VALUES (job.id, 'error', ending.error, ending.error_traceback, job.attempts + 1);
            END IF;
            IF ending.status <> 'todo' THEN
                PERFORM procrastinate_finish_job_v1(job.id, ending.status, false);
            ELSIF ending.costs THEN
                PERFORM procrastinate_retry_job_v2(job.id, ending.retry_at, ending.priority, ending.queue, ending.lock);
            ELSE
                UPDATE procrastinate_jobs SET status = 'todo', scheduled_at = ending.retry_at
                    WHERE procrastinate_jobs.id = job.id;
            END IF;
        ELSIF job.status <> ending.status THEN
            CONTINUE;
        END IF;
        RETURN NEXT job.id;
    END LOOP;
END $$;

-- What becomes of jobs whose worker has not been heard of for `silence`: another attempt, unless it would be one more
-- than `limits` grants the task, or their workers have vanished `most_stalls` times.
CREATE OR REPLACE FUNCTION jobs_ops.rescue(silence interval, most_stalls integer, limits jsonb, most integer)
    RETURNS SETOF procrastinate_jobs LANGUAGE plpgsql AS $$
DECLARE
    job    procrastinate_jobs;
    ending procrastinate_job_status;
    reason text;
BEGIN
    FOR job IN
        SELECT one.* FROM procrastinate_jobs AS one LEFT JOIN procrastinate_workers AS worker ON worker.id = one.worker_id
         WHERE one.status = 'doing' AND (worker.id IS NULL OR worker.last_heartbeat < clock_timestamp() - silence)
         ORDER BY one.started_at LIMIT most FOR UPDATE OF one SKIP LOCKED
    LOOP
        reason := format('STALLED: its worker vanished (%s of %s times)', job.stalls + 1, most_stalls);
        ending := CASE WHEN job.abort_requested THEN 'aborted'
                       WHEN job.stalls + 1 >= most_stalls OR job.attempts >= (limits ->> job.task_name)::integer
                       THEN 'failed' ELSE 'todo' END;
        INSERT INTO procrastinate_events (job_id, type, error, attempt)
            VALUES (job.id, 'error', reason, job.attempts + 1);
        UPDATE procrastinate_jobs SET stalls = stalls + 1 WHERE id = job.id;
        IF ending = 'todo' THEN
            PERFORM procrastinate_retry_job_v2(job.id, now(), NULL, NULL, NULL);
        ELSE
            PERFORM procrastinate_finish_job_v1(job.id, ending, false);
        END IF;
        SELECT * INTO job FROM procrastinate_jobs WHERE id = job.id;
        RETURN NEXT job;
    END LOOP;
END $$;

-- A job that was deferred with a key exists once, however often it is asked for: `jobs_ops.defer_once` returns its id.
CREATE TABLE IF NOT EXISTS jobs_ops.deferrals (
    key    text PRIMARY KEY,
    job_id bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS deferrals_at ON jobs_ops.deferrals (at);

CREATE OR REPLACE FUNCTION jobs_ops.defer_once(key text, job procrastinate_job_to_defer_v1)
    RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    made bigint := nextval('procrastinate_jobs_id_seq');
    kept bigint;
BEGIN
    INSERT INTO jobs_ops.deferrals AS deferral (key, job_id) VALUES (defer_once.key, made)
        ON CONFLICT ON CONSTRAINT deferrals_pkey DO NOTHING;
    IF NOT FOUND THEN
        SELECT deferral.job_id INTO kept FROM jobs_ops.deferrals AS deferral WHERE deferral.key = defer_once.key;
        RETURN kept;
    END IF;
    INSERT INTO procrastinate_jobs (id, queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
        VALUES (made, job.queue_name, job.task_name, job.priority, job.lock, job.queueing_lock, job.args,
                job.scheduled_at);
    RETURN made;
END $$;

-- Deletes up to `most` jobs that ended so before `before`, and returns how many there were: a matter of milliseconds.
CREATE OR REPLACE FUNCTION jobs_ops.purge(ended_as procrastinate_job_status, before timestamptz, most integer)
    RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM procrastinate_jobs WHERE id IN (
        SELECT id FROM procrastinate_jobs WHERE status = ended_as AND finished_at < before
            ORDER BY finished_at LIMIT most FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- What was before there were columns for it, as its events tell, and otherwise now: it is purged in its time.
UPDATE procrastinate_jobs AS job
   SET created_at = coalesce(seen.created_at, job.created_at),
       started_at = CASE WHEN job.status <> 'todo' THEN coalesce(job.started_at, seen.started_at) END,
       finished_at = coalesce(job.finished_at, seen.finished_at)
  FROM (SELECT event.job_id, min(event.at) FILTER (WHERE event.type = 'deferred') AS created_at,
               max(event.at) FILTER (WHERE event.type = 'started') AS started_at,
               max(event.at) FILTER (WHERE event.type IN ('succeeded', 'failed', 'cancelled', 'aborted')
                                       AND one.status NOT IN ('todo', 'doing')) AS finished_at
          FROM procrastinate_events AS event JOIN procrastinate_jobs AS one ON one.id = event.job_id
         GROUP BY event.job_id) AS seen
 WHERE seen.job_id = job.id;
UPDATE procrastinate_jobs SET finished_at = now()
 WHERE finished_at IS NULL AND status IN ('succeeded', 'failed', 'cancelled', 'aborted');
UPDATE procrastinate_jobs SET started_at = now() WHERE started_at IS NULL AND status = 'doing';
