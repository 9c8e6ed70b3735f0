"""Who starts executions and sends signals: patiently, with ids and keys, so that what is in doubt is asked again."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from chaos.workflows.plans import KINDS, planned

if TYPE_CHECKING:
    from random import Random

    from chaos.history import Pen
    from chaos.workflows.plans import Plan

START = "SELECT fw_workflow_start(%s, %s, %s, %s, %s)"
SIGNAL = "SELECT fw_workflow_signal(%s, 'chaos.approved', %s, %s, %s)"
# Executions of the signals that are sent at the same moment as their start, and of those that are sent late.
PATIENCE_SECONDS = 0.1
MOST_UNSENT = 5


class Starter(threading.Thread):
    """Starts executions until it is told to stop, and then sends the signals that some of them wait for.

    `brake` is set while enough are under way.
    """

    def __init__(
        self, database_url: str, receiver_url: str, organizations: int, pen: Pen, chance: Random, brake: threading.Event
    ) -> None:
        super().__init__(name="starter", daemon=True)
        self.enough = threading.Event()
        self.error: BaseException | None = None
        self._database_url = database_url
        self._receiver_url = receiver_url
        self._organizations = organizations
        self._pen = pen
        self._chance = chance
        self._brake = brake
        self._unsent: list[Plan] = []

    def run(self) -> None:
        """See `Thread`."""
        try:
            while not self.enough.is_set():
                if self._brake.is_set():
                    self.enough.wait(0.05)
                    continue
                self._start(planned(self._chance, self._organizations, self._receiver_url))
                if len(self._unsent) > MOST_UNSENT:
                    self._signal()
            while self._unsent:
                self._signal()
        except BaseException as error:  # noqa: BLE001  whoever joins raises it
            self.error = error

    def _start(self, plan: Plan) -> None:
        fails = plan.given["fails"]
        self._pen.tell("starting", event=plan.id, aggregate=plan.organization, handler=plan.workflow, version=fails)
        self._surely(START, plan.organization, plan.workflow, json.dumps(plan.given), plan.id, plan.id)
        self._pen.tell("started", event=plan.id, aggregate=plan.organization, handler=plan.workflow, version=fails)
        if KINDS[plan.workflow].waits_for_event:
            self._unsent.append(plan)

    def _signal(self) -> None:
        plan = self._unsent.pop(self._chance.randrange(len(self._unsent)))
        self._surely(SIGNAL, plan.organization, plan.id, json.dumps({"of": plan.id}), plan.id)
        self._pen.tell("signalled", event=plan.id)

    def _surely(self, statement: str, *arguments: Any) -> None:
        while True:
            try:
                with psycopg.connect(self._database_url, connect_timeout=2) as connection:
                    connection.execute(statement, arguments)
            except psycopg.OperationalError:
                # It may have been done: the id and the key let it be done again. `enough` is no reason not to.
                threading.Event().wait(PATIENCE_SECONDS)
            else:
                return
