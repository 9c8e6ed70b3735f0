"""What PostgreSQL itself notes of who changes executions: no worker is asked about its own deeds."""

from __future__ import annotations

__all__ = ["AUDIT", "STRANGERS", "TURNS"]

# `by` is the application's name: of a worker it ends in the number of its process. `expired`: the lease had ended.
AUDIT = """
CREATE TABLE chaos_turns (
    line bigserial PRIMARY KEY, execution uuid, by text, old_status text, new_status text, old_owner text,
    new_owner text, old_token bigint, new_token bigint, old_round int, expired boolean
);
CREATE FUNCTION chaos_note_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_turns (execution, by, old_status, new_status, old_owner, new_owner, old_token, new_token,
                             old_round, expired)
    VALUES (OLD.id, current_setting('application_name'), OLD.status, NEW.status, OLD.lease_owner, NEW.lease_owner,
            OLD.lease_token, NEW.lease_token, OLD.round, OLD.ready_at <= clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note_turn AFTER UPDATE ON fw_workflow_executions FOR EACH ROW
   WHEN (OLD.lease_token <> NEW.lease_token OR OLD.status <> NEW.status
         OR OLD.lease_owner IS DISTINCT FROM NEW.lease_owner
         OR (OLD.status = 'running' AND OLD.ready_at <> NEW.ready_at))
   EXECUTE FUNCTION chaos_note_turn();
CREATE TABLE chaos_strangers (execution uuid, step text, worker text, owner text, what text);
CREATE FUNCTION chaos_note_record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text;
BEGIN
    SELECT lease_owner INTO owner FROM fw_workflow_executions WHERE id = NEW.execution_id;
    IF owner IS DISTINCT FROM NEW.worker THEN
        INSERT INTO chaos_strangers VALUES (NEW.execution_id, NEW.step, NEW.worker, owner, 'wrote without the lease');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.status = 'completed' AND (NEW.status, NEW.output) IS DISTINCT FROM (OLD.status, OLD.output) THEN
            INSERT INTO chaos_strangers VALUES (NEW.execution_id, NEW.step, NEW.worker, owner, 'rewrote what was done');
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note_record AFTER INSERT OR UPDATE ON fw_workflow_steps FOR EACH ROW
   EXECUTE FUNCTION chaos_note_record();
"""
TURNS = """
SELECT execution::text, by, old_status, new_status, old_owner, new_owner, old_token, new_token, old_round, expired
  FROM chaos_turns ORDER BY line
"""
STRANGERS = "SELECT execution::text, step, worker, owner, what FROM chaos_strangers"
