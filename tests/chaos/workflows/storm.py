"""What goes wrong with workflows, and what operators do meanwhile, beside what goes wrong with everybody.

Told: `purged` (the whole queue), `sent again` (messages by hand, and their visibility ended), `reset` (an
organisation's leases were taken away), `paused` and `resumed`, `disabled` and `enabled` (each an organisation, named by
`aggregate`), `cancelling` (an execution).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from chaos.faults import Storm

if TYPE_CHECKING:
    from collections.abc import Callable

BREAK_SECONDS = (0.5, 2.0)
PURGE = "SELECT pgmq.purge_queue('workflow_execution_queue')"
# As the guide's retry of a dead letter sends them, and as the engine does; and all at once due.
SEND_AGAIN = """
SELECT pgmq.send('workflow_execution_queue', message - 'source'),
       pgmq.send('workflow_execution_queue', message),
       pgmq.set_vt('workflow_execution_queue', msg_id, 0)
  FROM (SELECT msg_id, message FROM pgmq.q_workflow_execution_queue ORDER BY random() LIMIT 10) AS those
"""
BUSY = """
SELECT organization_id FROM fw_workflow_executions
 WHERE status = 'running' GROUP BY organization_id ORDER BY random() LIMIT 1
"""
RESET = "UPDATE fw_module_settings SET worker_running = false WHERE organization_id = %s"
AT_WORK = "UPDATE fw_module_settings SET worker_running = true WHERE organization_id = %s"
PAUSED = "UPDATE fw_module_settings SET fw_worker_paused_at = now() WHERE organization_id = %s"
RESUMED = "UPDATE fw_module_settings SET fw_worker_paused_at = NULL WHERE organization_id = %s"
DISABLED = "UPDATE fw_module_settings SET fw_execution_worker_enabled = false WHERE organization_id = %s"
ENABLED = "UPDATE fw_module_settings SET fw_execution_worker_enabled = true WHERE organization_id = %s"
SOME = """
SELECT id::text FROM fw_workflow_executions
 WHERE status IN ('queued', 'running', 'waiting', 'retry_pending') ORDER BY random() LIMIT 2
"""
CANCEL = "SELECT fw_workflow_cancel(%s::uuid[], 'by the storm')"


class WorkflowStorm(Storm):
    """Over workflow-workers."""

    application = "workflow-worker"

    def __init__(self, *arguments: Any, lease_seconds: int) -> None:
        super().__init__(*arguments)
        self.freeze_seconds = (lease_seconds + 1.0, lease_seconds + 3.0)

    def of_its_own(self) -> list[Callable[[], None]]:
        """See `Storm`."""
        operators = [self.purge, self.send_again, self.send_again, self.reset, self.reset, self.cancel]
        return [*operators, self.pause, self.disable]

    def purge(self) -> None:
        """Empty the queue of all organisations."""
        self._patiently("purged", lambda connection: connection.execute(PURGE))

    def send_again(self) -> None:
        """Deliver messages twice."""
        self._patiently("sent again", lambda connection: connection.execute(SEND_AGAIN))

    def cancel(self) -> None:
        """Cancel executions, whatever they are at."""

        def cancel(connection: psycopg.Connection[Any]) -> None:
            ids = [name for (name,) in connection.execute(SOME)]
            for name in ids:
                self._pen.tell("cancelling", event=name)
            connection.execute(CANCEL, (ids,))

        self._patiently("", cancel)

    def reset(self) -> None:
        """Take an organisation's executions away from whoever has them, as the runbook does with a stuck one."""

        def take_away(connection: psycopg.Connection[Any]) -> None:
            for (organization,) in connection.execute(BUSY).fetchall():
                connection.execute("SET intelliflow.worker = 'on'")
                connection.execute(AT_WORK, (organization,))
                connection.execute("RESET intelliflow.worker")
                self._pen.tell("reset", aggregate=organization)
                connection.execute(RESET, (organization,))

        self._patiently("", take_away)

    def pause(self) -> None:
        """Pause an organisation, and resume it."""
        self._for_a_while(("paused", PAUSED), ("resumed", RESUMED))

    def disable(self) -> None:
        """Switch an organisation off, and on again."""
        self._for_a_while(("disabled", DISABLED), ("enabled", ENABLED))

    def _for_a_while(self, begin: tuple[str, str], end: tuple[str, str]) -> None:
        seconds = self._chance.uniform(*BREAK_SECONDS)

        def switch() -> None:
            found: list[str] = []
            self._patiently("", lambda connection: found.extend(one for (one,) in connection.execute(BUSY)))
            for organization in found:
                for what, statement in (begin, end):
                    self._set(what, statement, organization)
                    time.sleep(seconds)  # For this is the fault.

        self._in_the_background(switch)

    def _set(self, what: str, statement: str, organization: str) -> None:
        self._patiently("", lambda connection: connection.execute(statement, (organization,)))
        self._pen.tell(what, aggregate=organization)

    def _patiently(self, what: str, act: Callable[[psycopg.Connection[Any]], object]) -> None:
        """Do it, and do it again where another fault took the server away meanwhile."""
        while True:
            try:
                with psycopg.connect(self._postgres.url, connect_timeout=2) as connection:
                    act(connection)
            except psycopg.OperationalError:
                time.sleep(0.1)  # Until it is back.
            else:
                break
        if what:
            self._pen.tell(what)
