-- pg_cron's schema and functions, for databases without pg_cron: `intelliflow migrate` runs this before the migrations,
-- and again when this file has changed, so every statement must bear being repeated. The workflow-worker runs the jobs.
DO $$ BEGIN
    -- IF NOT EXISTS would ask for the privilege to make schemas every time.
    IF to_regnamespace('cron') IS NULL THEN
        CREATE SCHEMA cron;
    END IF;
END $$;
CREATE SEQUENCE IF NOT EXISTS cron.jobid_seq;
CREATE SEQUENCE IF NOT EXISTS cron.runid_seq;

-- Its columns are pg_cron's.
CREATE TABLE IF NOT EXISTS cron.job (
    jobid               bigint      PRIMARY KEY DEFAULT nextval('cron.jobid_seq'),
    schedule            text        NOT NULL,
    command             text        NOT NULL,
    nodename            text        NOT NULL DEFAULT 'localhost',
    -- Of a socket of the file system inet_server_port() knows none.
    nodeport            integer     NOT NULL DEFAULT current_setting('port')::integer,
    database            text        NOT NULL DEFAULT current_database(),
    username            text        NOT NULL DEFAULT current_user,
    active              boolean     NOT NULL DEFAULT true,
    jobname             text,
    CONSTRAINT jobname_username_uniq UNIQUE (jobname, username)
);

-- So are these.
CREATE TABLE IF NOT EXISTS cron.job_run_details (
    jobid               bigint,
    runid               bigint      PRIMARY KEY DEFAULT nextval('cron.runid_seq'),
    job_pid             integer,
    database            text,
    username            text,
    command             text,
    status              text,
    return_message      text,
    start_time          timestamptz,
    end_time            timestamptz
);
CREATE INDEX IF NOT EXISTS job_run_details_of_job ON cron.job_run_details (jobid, runid);
CREATE INDEX IF NOT EXISTS job_run_details_started ON cron.job_run_details (start_time);

-- Up to when a job's due times are dealt with: whoever moves this on runs the job, so each due time has one run.
CREATE TABLE IF NOT EXISTS cron.tick (
    jobid               bigint      PRIMARY KEY REFERENCES cron.job ON DELETE CASCADE,
    done_until          timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Which of the workers looks at the clock: one is enough, and the runs do not depend on there being only one.
CREATE TABLE IF NOT EXISTS cron.ticker (
    single              boolean     PRIMARY KEY DEFAULT true CHECK (single),
    owner               text,
    held_until          timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
INSERT INTO cron.ticker DEFAULT VALUES ON CONFLICT DO NOTHING;

-- What a number or a name of a field means; null where it is neither.
CREATE OR REPLACE FUNCTION cron.number_of(word text, lowest integer, names text[]) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT CASE WHEN word ~ '^[0-9]{1,9}$' THEN word::integer ELSE array_position(names, word) - 1 + lowest END
$$;

CREATE OR REPLACE FUNCTION cron.refuse(wrong text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'invalid schedule: %', wrong
          USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Use cron format (e.g. 5 4 * * *), or interval format ''[1-59] seconds''';
END $$;

-- The numbers that a field of a schedule means, refused where they are none. `names` are those from `lowest` on.
CREATE OR REPLACE FUNCTION cron.numbers_of(
    label text, field text, lowest integer, highest integer, names text[] DEFAULT '{}'
) RETURNS integer[] LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    item text;
    part text[];
    first integer;
    last integer;
    step integer;
    wrong text;
    found integer[] := '{}';
BEGIN
    FOREACH item IN ARRAY string_to_array(field, ',') LOOP
        part := regexp_match(item, '^(?:(\*)|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([0-9]{1,9}))?$');
        first := CASE WHEN part[1] = '*' THEN lowest ELSE cron.number_of(part[2], lowest, names) END;
        last := CASE WHEN part[1] = '*' THEN highest WHEN part[3] IS NULL THEN first
                     ELSE cron.number_of(part[3], lowest, names) END;
        step := coalesce(part[4]::integer, 1);
        wrong := CASE
            WHEN item = '' THEN 'has an empty entry between commas'
            WHEN part IS NULL THEN format('%s is no number, name, range, or range with a step', item)
            WHEN first IS NULL OR last IS NULL THEN format('%s has a name, and it takes %s', item,
                 CASE WHEN names = '{}' THEN 'numbers only' ELSE array_to_string(names, ', ') END)
            WHEN first NOT BETWEEN lowest AND highest OR last NOT BETWEEN lowest AND highest
                THEN format('%s is not between %s and %s', item, lowest, highest)
            WHEN last < first THEN format('%s runs backwards', item)
            WHEN part[4] IS NOT NULL AND part[1] IS NULL AND part[3] IS NULL
                THEN format('%s has a step but no range: write %s-%s/%s', item, part[2], highest, part[4])
            WHEN step NOT BETWEEN 1 AND highest THEN format('%s has a step that is not between 1 and %s', item, highest)
        END;
        IF wrong IS NOT NULL THEN
            PERFORM cron.refuse(label || ' ' || wrong);
        END IF;
        found := found || ARRAY (SELECT generate_series(first, last, step));
    END LOOP;
    RETURN found;
END $$;

-- Why no day is ever one of a schedule's, which needs a weekday of any kind; null where one is.
CREATE OR REPLACE FUNCTION cron.missing_day(day text, days integer[], months integer[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT CASE WHEN (SELECT min(one) FROM unnest(days) AS one) >
                     (SELECT max(CASE WHEN one = 2 THEN 29 WHEN one IN (4, 6, 9, 11) THEN 30 ELSE 31 END)
                        FROM unnest(months) AS one)
                THEN format('day of month %s comes in none of its months', day) END
$$;

-- Raises an error that names the field and the reason where a schedule is wrong.
CREATE OR REPLACE FUNCTION cron.check_schedule(schedule text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    trimmed constant text := btrim(lower(schedule), E' \t');
    field constant text[] := regexp_split_to_array(trimmed, '[ \t]+');
    seconds constant text := (regexp_match(trimmed, '^([^ \t]*)[ \t]+seconds?$'))[1];
    words constant text[] := '{@hourly,@daily,@midnight,@weekly,@monthly,@yearly,@annually}';
    days integer[];
    months integer[];
    wrong text;
BEGIN
    IF seconds IS NOT NULL THEN
        wrong := CASE WHEN seconds !~ '^([1-9]|[1-5][0-9])$'
                      THEN format('%s seconds are not between 1 and 59', seconds) END;
    ELSIF trimmed LIKE '@%' THEN
        wrong := CASE WHEN trimmed <> ALL (words)
                      THEN format('%s is none of %s', trimmed, array_to_string(words, ', ')) END;
    ELSIF trimmed = '' OR cardinality(field) <> 5 THEN
        wrong := format('it takes five fields (minute, hour, day of month, month, day of week), and has %s',
                        CASE WHEN trimmed = '' THEN 0 ELSE cardinality(field) END);
    ELSE
        PERFORM cron.numbers_of('minute', field[1], 0, 59);
        PERFORM cron.numbers_of('hour', field[2], 0, 23);
        days := CASE WHEN field[3] = '$' THEN '{1}' ELSE cron.numbers_of('day of month', field[3], 1, 31) END;
        months := cron.numbers_of('month', field[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
        PERFORM cron.numbers_of('day of week', field[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}');
        wrong := CASE WHEN field[5] LIKE '*%' THEN cron.missing_day(field[3], days, months) END;
    END IF;
    IF wrong IS NOT NULL THEN
        PERFORM cron.refuse(wrong);
    END IF;
END $$;

-- Whoever writes to cron.job, by whatever means, is told what is wrong with it.
CREATE OR REPLACE FUNCTION cron.job_checked() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM cron.check_schedule(NEW.schedule);
    -- A job that is older than the database's name, in a copy or after a change of it, is not refused.
    IF NEW.database <> current_database() AND (TG_OP = 'INSERT' OR NEW.database <> OLD.database) THEN
        RAISE EXCEPTION 'only jobs of database % can be scheduled here, not of %', current_database(), NEW.database
              USING ERRCODE = 'feature_not_supported', HINT = 'Connect to that database and schedule the job there.';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER job_checked BEFORE INSERT OR UPDATE OF schedule, database ON cron.job
    FOR EACH ROW EXECUTE FUNCTION cron.job_checked();

-- What was due before a job was made, changed or switched on again is not made up for.
CREATE OR REPLACE FUNCTION cron.job_begins() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO cron.tick (jobid) VALUES (NEW.jobid)
        ON CONFLICT (jobid) DO UPDATE SET done_until = clock_timestamp();
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER job_inserted AFTER INSERT ON cron.job
    FOR EACH ROW EXECUTE FUNCTION cron.job_begins();
CREATE OR REPLACE TRIGGER job_changed AFTER UPDATE ON cron.job FOR EACH ROW
    WHEN (NEW.schedule <> OLD.schedule OR (NEW.active AND NOT OLD.active)) EXECUTE FUNCTION cron.job_begins();

-- Unlike pg_cron's it switches a job of this name on again that somebody had switched off.
CREATE OR REPLACE FUNCTION cron.schedule(job_name text, schedule text, command text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    scheduled bigint;
BEGIN
    IF num_nulls(job_name, schedule, command) > 0 THEN
        RAISE EXCEPTION 'job_name, schedule and command can not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    INSERT INTO cron.job AS known (jobname, schedule, command)
    VALUES (job_name, schedule.schedule, schedule.command)
        ON CONFLICT ON CONSTRAINT jobname_username_uniq
        DO UPDATE SET schedule = excluded.schedule, command = excluded.command, database = excluded.database,
                      active = true
    RETURNING jobid INTO scheduled;
    RETURN scheduled;
END $$;

CREATE OR REPLACE FUNCTION cron.schedule(schedule text, command text) RETURNS bigint LANGUAGE sql STRICT AS $$
    INSERT INTO cron.job (schedule, command) VALUES ($1, $2) RETURNING jobid
$$;

-- Unlike pg_cron's it removes every job of this name, whoever made it: who may call this may do so in any case, and who
-- stops a job at night, under another login than it was made with, means that one.
CREATE OR REPLACE FUNCTION cron.unschedule(job_name text) RETURNS boolean LANGUAGE plpgsql STRICT AS $$
BEGIN
    DELETE FROM cron.job WHERE jobname = job_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'could not find valid entry for job ''%''', job_name
              USING HINT = 'It may be unscheduled already.';
    END IF;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION cron.unschedule(job_id bigint) RETURNS boolean LANGUAGE plpgsql STRICT AS $$
BEGIN
    DELETE FROM cron.job WHERE jobid = job_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'could not find valid entry for job %', job_id USING HINT = 'It may be unscheduled already.';
    END IF;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION cron.alter_job(
    job_id bigint, schedule text DEFAULT NULL, command text DEFAULT NULL, database text DEFAULT NULL,
    username text DEFAULT NULL, active boolean DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF num_nonnulls(schedule, command, database, username, active) = 0 THEN
        RAISE EXCEPTION 'no updates specified'
              USING HINT = 'You must specify at least one job attribute to change when calling alter_job';
    END IF;
    IF username <> current_user AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'must be superuser to alter username' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE cron.job
       SET schedule = coalesce(alter_job.schedule, job.schedule), command = coalesce(alter_job.command, job.command),
           database = coalesce(alter_job.database, job.database), username = coalesce(alter_job.username, job.username),
           active = coalesce(alter_job.active, job.active)
     WHERE jobid = job_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Job % does not exist or you don''t own it', job_id;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION cron.schedule_in_database(
    job_name text, schedule text, command text, database text, username text DEFAULT NULL, active boolean DEFAULT true
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cron.schedule_in_database() needs pg_cron, which this database does not have'
          USING ERRCODE = 'feature_not_supported',
                HINT = 'Connect to the database that the job is for, and use cron.schedule().';
END $$;

-- A command runs with the worker's login: who may schedule one may do all that the worker may.
REVOKE ALL ON SCHEMA cron FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA cron FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA cron FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA cron FROM PUBLIC;
