-- What an attempt died of, as an event of the job: Procrastinate itself keeps no errors.
-- In a file of its own, since a new value of an enum cannot be used before it is committed.
-- depends:

ALTER TYPE procrastinate_job_event_type ADD VALUE IF NOT EXISTS 'error';
