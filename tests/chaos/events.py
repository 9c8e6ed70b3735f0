"""What writers and handlers of the chaos agree on."""

from __future__ import annotations

QUEUE = "intelliflow:events"
# A dead letter of the one is passed by, of the other waited for.
LENIENT = "chaos.lenient"
STRICT = "chaos.strict"
HANDLERS = ("first", "second", "ledger")

# In the database under test, because writers and handlers share its transactions; who wrote what the history tells.
TABLES = """
CREATE TABLE aggregate (id text PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
CREATE TABLE ledger (line bigserial PRIMARY KEY, event uuid, aggregate text, version bigint);
CREATE TABLE ownership (
    line bigserial PRIMARY KEY, partition int, old_owner text, new_owner text, old_token bigint, new_token bigint,
    expired boolean
);
CREATE FUNCTION note_ownership() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ownership (partition, old_owner, new_owner, old_token, new_token, expired)
    VALUES (OLD.partition, OLD.owner, NEW.owner, OLD.token, NEW.token, OLD.lease_until < clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER note_ownership AFTER UPDATE ON domain_event_partition
   FOR EACH ROW WHEN (OLD.owner IS DISTINCT FROM NEW.owner OR OLD.token <> NEW.token)
   EXECUTE FUNCTION note_ownership();
"""
