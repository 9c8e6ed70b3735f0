-- What an application's login needs to call fw_workflow_start() and fw_workflow_signal(), and no more.
GRANT USAGE ON SCHEMA pgmq TO the_application;
GRANT SELECT ON fw_workflow_rules, fw_workflow_definitions, fw_workflow_code, fw_workflow_waits TO the_application;
GRANT SELECT, INSERT, UPDATE (ready_at) ON fw_workflow_executions TO the_application;
GRANT INSERT ON fw_workflow_signals TO the_application;
GRANT SELECT ON SEQUENCE fw_workflow_signals_id_seq TO the_application;
GRANT SELECT, INSERT, UPDATE (vt) ON pgmq.q_workflow_execution_queue TO the_application;
GRANT USAGE ON SEQUENCE pgmq.q_workflow_execution_queue_msg_id_seq TO the_application;
