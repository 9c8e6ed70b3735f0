-- depends: 0012.document-search
-- Durable workflows. `intelliflow migrate` has installed pgmq and, where there is no pg_cron, our own schema of that name.
DO $$ BEGIN
    PERFORM pgmq.create('workflow_execution_queue');
    PERFORM pgmq.create('workflow_dlq');
END $$;

-- A row for each organisation that uses workflows. An application that has a table of this name keeps it, and gets what
-- is missing.
CREATE TABLE IF NOT EXISTS fw_module_settings (
    organization_id     text        NOT NULL PRIMARY KEY
);
ALTER TABLE fw_module_settings
    ADD COLUMN IF NOT EXISTS fw_execution_worker_enabled boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS fw_worker_batch_size integer NOT NULL DEFAULT 10
        CONSTRAINT fw_worker_batch_size_range CHECK (fw_worker_batch_size BETWEEN 1 AND 50),
    ADD COLUMN IF NOT EXISTS fw_worker_visibility_timeout_seconds integer NOT NULL DEFAULT 30
        CONSTRAINT fw_worker_visibility_timeout_range CHECK (fw_worker_visibility_timeout_seconds BETWEEN 30 AND 600),
    -- Executions of this organisation at work at the same time, in all workers together.
    ADD COLUMN IF NOT EXISTS fw_worker_max_concurrency integer NOT NULL DEFAULT 100
        CONSTRAINT fw_worker_max_concurrency_range CHECK (fw_worker_max_concurrency BETWEEN 1 AND 10000),
    ADD COLUMN IF NOT EXISTS fw_worker_paused_at timestamptz,
    ADD COLUMN IF NOT EXISTS fw_worker_pause_reason text,
    -- What the workers last wrote. To set worker_running to false by hand takes their executions away from them.
    ADD COLUMN IF NOT EXISTS worker_running boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS worker_last_run_at timestamptz,
    ADD COLUMN IF NOT EXISTS worker_last_batch_size integer;
-- It is written every second an organisation has work, to the same few rows.
ALTER TABLE fw_module_settings SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Those that may run, so that claims pass over all others at once, however many they are.
CREATE INDEX fw_module_settings_allowed ON fw_module_settings (organization_id)
 WHERE fw_execution_worker_enabled AND fw_worker_paused_at IS NULL;

-- What an organisation has defined. A version never changes; a running execution stays with its own.
CREATE TABLE fw_workflow_rules (
    id                  uuid        NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id     text        NOT NULL,
    name                text        NOT NULL,
    active              boolean     NOT NULL DEFAULT true,
    current_version     integer     NOT NULL DEFAULT 1,
    -- Of the current version: which events start it (`lead.created`, `lead.*`, `*`); null where only a call does.
    trigger_event       text,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (organization_id, name)
);
CREATE INDEX fw_workflow_rules_trigger ON fw_workflow_rules (organization_id) WHERE active AND trigger_event IS NOT NULL;

CREATE TABLE fw_workflow_definitions (
    rule_id             uuid        NOT NULL REFERENCES fw_workflow_rules ON DELETE CASCADE,
    version             integer     NOT NULL CHECK (version > 0),
    definition          jsonb       NOT NULL CHECK (jsonb_typeof(definition) = 'object'),
                        CONSTRAINT fw_workflow_definition_size CHECK (pg_column_size(definition) <= 1048576),
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rule_id, version)
);

-- Events from outside that executions wait for, kept for those that will.
CREATE TABLE fw_workflow_signals (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id     text        NOT NULL,
    event_name          text        NOT NULL,
    correlation         text        NOT NULL,
    payload             jsonb       NOT NULL DEFAULT 'null'
                        CONSTRAINT fw_workflow_payload_size CHECK (pg_column_size(payload) <= 4194304),
    -- The same key of an organisation is the same signal.
    idempotency_key     text,
    received_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX fw_workflow_signals_once ON fw_workflow_signals (organization_id, idempotency_key)
 WHERE idempotency_key IS NOT NULL;
CREATE INDEX fw_workflow_signals_matching ON fw_workflow_signals (organization_id, event_name, correlation, id);
CREATE INDEX fw_workflow_signals_received ON fw_workflow_signals (received_at);

-- The newest signal so far; clocks are put back, numbers are not.
CREATE FUNCTION fw_workflow_newest_signal() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM fw_workflow_signals_id_seq
$$;

-- The truth about every execution. Its message in workflow_execution_queue follows it.
CREATE TABLE fw_workflow_executions (
    id                  uuid        NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id     text        NOT NULL,
    -- What runs: a rule in one of its versions (the current one, when it first runs, unless given), or a workflow
    -- written in Python, in one of its.
    rule_id             uuid        REFERENCES fw_workflow_rules,
    rule_version        integer,
    workflow            text,
    workflow_version    integer,
    status              text        NOT NULL DEFAULT 'queued' CONSTRAINT fw_workflow_executions_status CHECK (status IN
                        ('queued', 'running', 'waiting', 'retry_pending', 'completed', 'failed', 'cancelled')),
    -- A worker reads those of many executions at once, and must not choke on one.
    input               jsonb       NOT NULL DEFAULT '{}'
                        CONSTRAINT fw_workflow_input_size CHECK (pg_column_size(input) <= 4194304),
    result              jsonb,
    -- Failed attempts since the last step that was completed; attempts in all; and how often its worker vanished since.
    retry_count         integer     NOT NULL DEFAULT 0,
    total_attempts      integer     NOT NULL DEFAULT 0,
    crash_count         integer     NOT NULL DEFAULT 0,
    last_error          text,
    next_retry_at       timestamptz,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at          timestamptz,
    completed_at        timestamptz,
    -- When a worker may take it: for one that is running, when its lease ends.
    ready_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Whoever changes the status takes the next token; a worker with an older one writes nothing any more.
    lease_token         bigint      NOT NULL DEFAULT 0,
    lease_owner         text,
    heartbeat_at        timestamptz,
    cancel_requested_at timestamptz,
    -- Signals up to here came before it began, and are not for it.
    signals_before      bigint      NOT NULL DEFAULT fw_workflow_newest_signal(),
    -- The same key starts the same rule or workflow of an organisation once.
    idempotency_key     text,
    -- The execution whose step waits for this one, and that step.
    parent_id           uuid,
    parent_step         text,
    -- How many parents it has, one above the other.
    depth               integer     NOT NULL DEFAULT 0,
    -- Each time it is opened again after it had failed, a new round of attempts begins.
    round               integer     NOT NULL DEFAULT 0,
    replayed_from       bigint,
    -- The W3C trace context of whoever started it, as JSON.
    trace               text,
    -- Its message. Another number than in the queue means that the message there is an old one.
    msg_id              bigint      NOT NULL DEFAULT nextval('pgmq.q_workflow_execution_queue_msg_id_seq'),
    CONSTRAINT fw_workflow_executions_what CHECK (num_nonnulls(rule_id, workflow) = 1)
);
ALTER TABLE fw_workflow_executions SET (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
-- What is left to do, by organisation and in order.
CREATE INDEX fw_workflow_executions_ready ON fw_workflow_executions (organization_id, ready_at)
 WHERE status IN ('queued', 'running', 'waiting', 'retry_pending');
CREATE INDEX fw_workflow_executions_running ON fw_workflow_executions (organization_id) WHERE status = 'running';
CREATE UNIQUE INDEX fw_workflow_executions_once
    ON fw_workflow_executions (organization_id, (coalesce(rule_id::text, workflow)), idempotency_key)
 WHERE idempotency_key IS NOT NULL;
CREATE INDEX fw_workflow_executions_parent ON fw_workflow_executions (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX fw_workflow_executions_listed ON fw_workflow_executions (organization_id, created_at);
CREATE INDEX fw_workflow_executions_failed ON fw_workflow_executions (organization_id, created_at)
 WHERE status = 'failed';
CREATE INDEX fw_workflow_executions_over ON fw_workflow_executions ((status = 'failed'), completed_at)
 WHERE completed_at IS NOT NULL;

-- By it an execution that is opened again finds its dead letters.
CREATE INDEX q_workflow_dlq_execution ON pgmq.q_workflow_dlq ((message->>'execution_id'));

-- Every step that has begun to matter: completed, failed (one row for each attempt), or waiting.
CREATE TABLE fw_workflow_steps (
    execution_id        uuid        NOT NULL REFERENCES fw_workflow_executions ON DELETE CASCADE,
    -- The step's id; for a workflow in Python its name, with #2 for the second of that name.
    step                text        NOT NULL,
    round               integer     NOT NULL DEFAULT 0,
    attempt             integer     NOT NULL DEFAULT 1,
    kind                text        NOT NULL,
    status              text        NOT NULL CHECK (status IN ('completed', 'failed', 'waiting')),
    -- Of a completed one its result; of a waiting one until when, and for what.
    output              jsonb,
    error               text,
    started_at          timestamptz NOT NULL,
    finished_at         timestamptz,
    worker              text,
    PRIMARY KEY (execution_id, step, round, attempt)
);

-- The steps that wait for one.
CREATE TABLE fw_workflow_waits (
    execution_id        uuid        NOT NULL REFERENCES fw_workflow_executions ON DELETE CASCADE,
    step                text        NOT NULL,
    organization_id     text        NOT NULL,
    event_name          text        NOT NULL,
    correlation         text        NOT NULL,
    -- Older signals are not meant: they came before the execution began, or its earlier steps have had them.
    after_signal        bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (execution_id, step)
);
CREATE INDEX fw_workflow_waits_matching ON fw_workflow_waits (organization_id, event_name, correlation);

-- The events that an organisation's definitions wait for, or that one of its executions has waited for: those of them
-- that come over the outbox are kept as signals, and no others. To forget a name, delete its row.
CREATE TABLE fw_workflow_awaited (
    organization_id     text        NOT NULL,
    event_name          text        NOT NULL,
    PRIMARY KEY (organization_id, event_name)
);

CREATE FUNCTION fw_workflow_waits_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- In order, so that those who name the same events for the first time wait for each other instead of deadlocking.
    INSERT INTO fw_workflow_awaited
    SELECT DISTINCT organization_id, event_name FROM inserted ORDER BY 1, 2 ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER fw_workflow_waits_inserted AFTER INSERT ON fw_workflow_waits
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION fw_workflow_waits_inserted();

CREATE FUNCTION fw_workflow_definitions_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fw_workflow_awaited
    SELECT DISTINCT rule.organization_id, event #>> '{}'
      FROM inserted
      JOIN fw_workflow_rules AS rule ON rule.id = inserted.rule_id
     CROSS JOIN jsonb_path_query(inserted.definition, '$.**.wait_for_event.event') AS event
     WHERE jsonb_typeof(event) = 'string'
     ORDER BY 1, 2 ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER fw_workflow_definitions_inserted AFTER INSERT ON fw_workflow_definitions
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION fw_workflow_definitions_inserted();

-- The workflows in Python that a worker has had, so that a name that is none is refused when it is started.
CREATE TABLE fw_workflow_code (
    workflow            text        NOT NULL,
    version             integer     NOT NULL,
    announced_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workflow, version)
);

-- Who inserts an execution, by whatever means, sends its message with it.
CREATE FUNCTION fw_workflow_message(execution_id uuid, organization_id text, rule_id uuid, workflow text, attempt integer)
RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    -- By `source` the queue's trigger tells our own messages from those that somebody sends.
    SELECT jsonb_build_object('execution_id', execution_id, 'organization_id', organization_id, 'rule_id', rule_id,
                              'workflow', workflow, 'attempt', attempt, 'source', 'engine')
$$;

CREATE FUNCTION fw_workflow_executions_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pgmq.q_workflow_execution_queue (msg_id, vt, message) OVERRIDING SYSTEM VALUE
    SELECT msg_id, ready_at, fw_workflow_message(id, organization_id, rule_id, workflow, retry_count + 1)
      FROM inserted
     WHERE status IN ('queued', 'running', 'waiting', 'retry_pending');
    RETURN NULL;
END $$;
CREATE TRIGGER fw_workflow_executions_inserted AFTER INSERT ON fw_workflow_executions
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION fw_workflow_executions_inserted();

-- Moves messages that are done with to the queue's archive, as pgmq.archive() does, many at a time.
CREATE FUNCTION fw_workflow_archive(msg_ids bigint[]) RETURNS void LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM pgmq.q_workflow_execution_queue WHERE msg_id = ANY (msg_ids)
        RETURNING msg_id, read_ct, enqueued_at, vt, message
    )
    INSERT INTO pgmq.a_workflow_execution_queue (msg_id, read_ct, enqueued_at, vt, message)
    SELECT msg_id, read_ct, enqueued_at, vt, message FROM gone ON CONFLICT DO NOTHING
$$;

-- Lets executions that wait go on now.
CREATE FUNCTION fw_workflow_wake(execution_ids uuid[]) RETURNS void LANGUAGE sql AS $$
    WITH waiting AS (
        SELECT id FROM fw_workflow_executions
         WHERE id = ANY (execution_ids) AND status = 'waiting' AND ready_at > clock_timestamp()
         ORDER BY id FOR NO KEY UPDATE
    ), woken AS (
        UPDATE fw_workflow_executions AS execution SET ready_at = clock_timestamp()
          FROM waiting WHERE execution.id = waiting.id
        RETURNING msg_id
    )
    UPDATE pgmq.q_workflow_execution_queue AS message SET vt = clock_timestamp()
      FROM woken WHERE message.msg_id = woken.msg_id
$$;

-- A status that is changed by hand: the worker that has the execution loses it, and the message follows. Workers take a
-- new token whenever they change the status themselves.
CREATE FUNCTION fw_workflow_executions_edited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.lease_token := OLD.lease_token + 1;
    NEW.lease_owner := NULL;
    IF NEW.status IN ('completed', 'failed', 'cancelled') THEN
        NEW.completed_at := clock_timestamp();
        NEW.next_retry_at := NULL;
        PERFORM fw_workflow_archive(ARRAY [OLD.msg_id]);
        DELETE FROM fw_workflow_waits WHERE execution_id = OLD.id;
    ELSE
        NEW.completed_at := NULL;
        IF NEW.status = 'running' THEN
            NEW.status := 'queued';
        END IF;
        IF OLD.status IN ('completed', 'failed', 'cancelled') THEN
            NEW.round := OLD.round + 1;
            NEW.retry_count := 0;
            NEW.crash_count := 0;
            NEW.cancel_requested_at := NULL;
        END IF;
        NEW.ready_at := CASE NEW.status WHEN 'queued' THEN clock_timestamp()
                                        WHEN 'retry_pending' THEN coalesce(NEW.next_retry_at, clock_timestamp())
                                        ELSE NEW.ready_at END;
        IF NEW.msg_id = OLD.msg_id THEN
            DELETE FROM pgmq.q_workflow_execution_queue WHERE msg_id = OLD.msg_id;
            NEW.msg_id := nextval('pgmq.q_workflow_execution_queue_msg_id_seq');
            INSERT INTO pgmq.q_workflow_execution_queue (msg_id, vt, message) OVERRIDING SYSTEM VALUE
            VALUES (NEW.msg_id, NEW.ready_at,
                    fw_workflow_message(NEW.id, NEW.organization_id, NEW.rule_id, NEW.workflow, NEW.retry_count + 1));
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fw_workflow_executions_edited BEFORE UPDATE OF status ON fw_workflow_executions
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status AND NEW.lease_token = OLD.lease_token)
    EXECUTE FUNCTION fw_workflow_executions_edited();

-- Once it is over: a parent goes on, children end with who started them. After the statement, for it may have ended
-- several of a family, and none of them may be changed twice by it.
CREATE FUNCTION fw_workflow_executions_ended() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    children uuid[];
BEGIN
    IF NEW.parent_id IS NOT NULL THEN
        -- Held, for it may just be about to wait: either it sees that its child is over, or we see that it waits.
        PERFORM FROM fw_workflow_executions WHERE id = NEW.parent_id FOR NO KEY UPDATE;
        PERFORM fw_workflow_wake(ARRAY [NEW.parent_id]);
    END IF;
    IF NEW.status = 'cancelled' THEN
        SELECT array_agg(id) INTO children FROM fw_workflow_executions
         WHERE parent_id = NEW.id AND status IN ('queued', 'running', 'waiting', 'retry_pending');
        IF children IS NOT NULL THEN
            PERFORM fw_workflow_cancel(children, 'cancelled with its parent');
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER fw_workflow_executions_ended AFTER UPDATE OF status ON fw_workflow_executions
    FOR EACH ROW WHEN (OLD.status IN ('queued', 'running', 'waiting', 'retry_pending')
                       AND (NEW.status = 'cancelled'
                            OR (NEW.status IN ('completed', 'failed') AND NEW.parent_id IS NOT NULL)))
    EXECUTE FUNCTION fw_workflow_executions_ended();

-- Holds executions, and whatever changes when some of these are cancelled, in the order in which everybody holds
-- executions, so that nobody waits for somebody who waits for him.
CREATE FUNCTION fw_workflow_hold(execution_ids uuid[], cancelled uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM fw_workflow_executions
      WHERE id IN (
            WITH RECURSIVE family AS (
                SELECT unnest(cancelled) AS id
                 UNION
                SELECT child.id FROM family JOIN fw_workflow_executions AS child ON child.parent_id = family.id
                 WHERE child.status IN ('queued', 'running', 'waiting', 'retry_pending')
            )
            SELECT id FROM family
             UNION ALL
            SELECT unnest(execution_ids)
             UNION ALL
            SELECT parent_id FROM fw_workflow_executions WHERE id = ANY (cancelled) AND parent_id IS NOT NULL)
      ORDER BY id FOR NO KEY UPDATE;
END $$;

-- Ends executions that are not at work, and asks those that are to end at their next step. Returns both.
CREATE FUNCTION fw_workflow_cancel(execution_ids uuid[], reason text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    ended integer;
    asked integer;
BEGIN
    -- Held, also so that none goes from running to waiting between the two.
    PERFORM fw_workflow_hold('{}', execution_ids);
    UPDATE fw_workflow_executions SET status = 'cancelled', last_error = 'CANCELLED: ' || reason
     WHERE id = ANY (execution_ids) AND status IN ('queued', 'waiting', 'retry_pending');
    GET DIAGNOSTICS ended = ROW_COUNT;
    UPDATE fw_workflow_executions SET cancel_requested_at = clock_timestamp()
     WHERE id = ANY (execution_ids) AND status = 'running' AND cancel_requested_at IS NULL;
    GET DIAGNOSTICS asked = ROW_COUNT;
    RETURN ended + asked;
END $$;

-- A message that somebody sends for an execution that has failed opens it again. For one that is at work it changes
-- nothing; the sweeper clears it away.
CREATE FUNCTION fw_workflow_message_sent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.message->>'execution_id' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
        UPDATE fw_workflow_executions
           SET status = 'queued', lease_token = lease_token + 1, lease_owner = NULL, msg_id = NEW.msg_id,
               ready_at = NEW.vt, retry_count = 0, crash_count = 0, round = round + 1,
               completed_at = NULL, next_retry_at = NULL, cancel_requested_at = NULL,
               replayed_from = fw_workflow_executions.msg_id
         WHERE id = (NEW.message->>'execution_id')::uuid AND status = 'failed'
           AND organization_id = coalesce(NEW.message->>'organization_id', organization_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER fw_workflow_message_sent AFTER INSERT ON pgmq.q_workflow_execution_queue
    FOR EACH ROW WHEN ((NEW.message->>'source') IS DISTINCT FROM 'engine') EXECUTE FUNCTION fw_workflow_message_sent();

-- `worker_running` set to false by hand ("reset the stuck semaphore"): the leases of the organisation's executions end
-- at once, and whoever held them is fenced off. Workers say that it is they who write.
CREATE FUNCTION fw_worker_running_reset() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH held AS (
        SELECT id FROM fw_workflow_executions WHERE organization_id = NEW.organization_id AND status = 'running'
         ORDER BY id FOR NO KEY UPDATE
    ), freed AS (
        UPDATE fw_workflow_executions AS execution
           SET status = 'queued', lease_token = lease_token + 1, lease_owner = NULL, ready_at = clock_timestamp()
          FROM held WHERE execution.id = held.id
        RETURNING msg_id
    )
    UPDATE pgmq.q_workflow_execution_queue AS message SET vt = clock_timestamp()
      FROM freed WHERE message.msg_id = freed.msg_id;
    RETURN NULL;
END $$;
CREATE TRIGGER fw_worker_running_reset AFTER UPDATE OF worker_running ON fw_module_settings
    FOR EACH ROW WHEN (OLD.worker_running AND NOT NEW.worker_running
                       AND current_setting('intelliflow.worker', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION fw_worker_running_reset();

-- Starts a rule of the organisation by its name, or a workflow in Python, within the caller's transaction. Returns the
-- execution: with an id or a key that was used before, the one that it started then, also when the rule has been switched
-- off since.
CREATE FUNCTION fw_workflow_start(
    organization text, workflow_name text, given jsonb DEFAULT '{}', key text DEFAULT NULL, execution uuid DEFAULT NULL,
    trace_context text DEFAULT NULL, parent uuid DEFAULT NULL, step_of_parent text DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    rule fw_workflow_rules%ROWTYPE;
    code integer;
    depth_of_it integer := 0;
    started uuid;
BEGIN
    IF parent IS NOT NULL THEN
        SELECT depth + 1 INTO depth_of_it FROM fw_workflow_executions
         WHERE id = parent AND organization_id = organization;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'organisation % has no execution % that could be a parent', organization, parent
                  USING ERRCODE = 'foreign_key_violation';
        END IF;
        IF depth_of_it > 10 THEN
            RAISE EXCEPTION 'workflows start each other, more than 10 deep' USING ERRCODE = 'program_limit_exceeded';
        END IF;
    END IF;
    SELECT * INTO rule FROM fw_workflow_rules WHERE organization_id = organization AND name = workflow_name;
    -- A rule may say that it is a workflow in Python: then that has its version, too.
    SELECT max(version) INTO code FROM fw_workflow_code
     WHERE workflow = CASE WHEN rule.id IS NULL THEN workflow_name ELSE
                      (SELECT definition->>'workflow' FROM fw_workflow_definitions AS definitions
                        WHERE definitions.rule_id = rule.id AND definitions.version = rule.current_version) END;
    IF rule.active OR (rule.id IS NULL AND code IS NOT NULL) THEN
        INSERT INTO fw_workflow_executions
               (id, organization_id, rule_id, rule_version, workflow, workflow_version, input, idempotency_key, trace,
                parent_id, parent_step, depth)
        VALUES (coalesce(execution, gen_random_uuid()), organization, rule.id, rule.current_version,
                CASE WHEN rule.id IS NULL THEN workflow_name END, code, coalesce(given, '{}'), key, trace_context,
                parent, step_of_parent, depth_of_it)
            ON CONFLICT DO NOTHING
        RETURNING id INTO started;
    END IF;
    IF started IS NULL THEN
        SELECT id INTO started FROM fw_workflow_executions WHERE id = execution AND organization_id = organization;
    END IF;
    IF started IS NULL AND key IS NOT NULL THEN
        SELECT id INTO started FROM fw_workflow_executions
         WHERE organization_id = organization AND idempotency_key = key
           AND coalesce(rule_id::text, workflow) = coalesce(rule.id::text, workflow_name);
    END IF;
    IF started IS NULL AND EXISTS (SELECT FROM fw_workflow_executions WHERE id = execution) THEN
        RAISE EXCEPTION 'execution % is another organisation''s', execution USING ERRCODE = 'unique_violation';
    END IF;
    IF started IS NULL THEN
        RAISE EXCEPTION 'organisation % has no active workflow %', organization, workflow_name
              USING ERRCODE = 'no_data_found',
                    HINT = 'intelliflow workflow rules lists its rules; one in Python is known once a worker has had it';
    END IF;
    RETURN started;
END $$;

-- Tells executions that wait for this event, now or later, within the caller's transaction. Returns how many waited.
CREATE FUNCTION fw_workflow_signal(
    organization text, event text, correlated text, data jsonb DEFAULT 'null', key text DEFAULT NULL
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    waiting uuid[];
BEGIN
    -- Who begins to wait takes the same lock: either they see the signal, or we see them.
    PERFORM pg_advisory_xact_lock(hashtextextended(organization || chr(1) || event || chr(1) || correlated, 4602519830));
    INSERT INTO fw_workflow_signals (organization_id, event_name, correlation, payload, idempotency_key)
    VALUES (organization, event, correlated, coalesce(data, 'null'), key) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT array_agg(DISTINCT execution_id) INTO waiting FROM fw_workflow_waits
     WHERE organization_id = organization AND event_name = event AND correlation = correlated;
    -- A statement may take some seconds: what a crowd waits for, the sweeper tells the rest of it.
    PERFORM fw_workflow_wake(waiting[:10000]);
    RETURN coalesce(cardinality(waiting), 0);
END $$;

-- The runbook's tick. Workers poll by themselves: it wakes them, and as long as it is not scheduled nothing starts.
CREATE SCHEMA IF NOT EXISTS util;
CREATE SEQUENCE util.invocations;
CREATE FUNCTION util.invoke_edge_function(function_name text, payload jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF function_name IS DISTINCT FROM 'workflow-executor-worker' THEN
        RAISE EXCEPTION 'there is no function %', function_name
              USING HINT = 'util.invoke_edge_function() calls workflow-executor-worker';
    END IF;
    PERFORM pg_notify('workflow_executions', '');
    RETURN nextval('util.invocations');
END $$;

-- Whether the worker is scheduled at all. cron.job shows a login only its own jobs, so it is asked as the one who made it.
CREATE FUNCTION fw_workflows_scheduled() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM cron.job WHERE jobname = 'process-workflow-queue' AND active)
$$;

DO $do$ BEGIN
    PERFORM cron.schedule('process-workflow-queue', '* * * * *',
                          $$SELECT util.invoke_edge_function('workflow-executor-worker', '{}'::jsonb);$$);
END $do$;
