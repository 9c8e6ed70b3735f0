"""`./dev run`: real servers, the workers, events, an SMS, a webhook, documents, and what became of all of them."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psycopg

from embedded_stack.binaries import ProgramMissingError
from embedded_stack.documents import Document, found_documents, queue_documents
from embedded_stack.documents import table as document_table
from embedded_stack.journey import NOTIFICATION_HEADER, Journey, settled_journeys, table
from embedded_stack.other_channels import Message, queue_messages, settled, wait_until_put_off
from embedded_stack.other_channels import table as message_table
from embedded_stack.place import claimed_place
from embedded_stack.sample_events import SampleEvent, commit, sample_events
from embedded_stack.server import ServerFailedError
from embedded_stack.stack import Stack, running_stack
from embedded_stack.terminal import log_warnings_only, say, show
from embedded_stack.worker_process import WorkerFailedError
from embedded_stack.workflows import finished_runs, prepare_workflow
from embedded_stack.workflows import table as workflow_table
from worker_ops.migrations import MigrationError
from worker_runtime.redis.connection import RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embedded_stack.sms_server import SmsServer
    from embedded_stack.workflows import Run

DATA = Path(".data")
ARRIVAL_SECONDS = 90.0
SETTLING_SECONDS = 15.0
READING_SECONDS = 60.0
PUT_OFF_SECONDS = 5.0
CHECK_SECONDS = 0.5
SIGNAL_BASE = 128
FAILURES = (
    ServerFailedError,
    ProgramMissingError,
    WorkerFailedError,
    MigrationError,
    RedisUnavailable,
    RedisError,
    psycopg.Error,
    OSError,
)


@dataclass(frozen=True)
class Result:
    """What came of it; the time is from the first commit until the last job is done."""

    journeys: list[Journey]
    messages: list[Message]
    documents: list[Document]
    workflows: list[Run]
    elapsed_ms: int

    @property
    def missing(self) -> list[str]:
        """What did not arrive, and why."""
        return [
            *(
                f"{one.event.event_type} {one.event.id}: {one.stopped_at}"
                for one in self.journeys
                if not one.is_complete
            ),
            *(f"{one.channel} {one.job_id}: {one.stopped_at}" for one in self.messages if not one.is_complete),
            *(f"{one.name}: {one.stopped_at}" for one in self.documents if not one.is_complete),
            *(f"workflow of {one.event_id}: {one.stopped_at}" for one in self.workflows if not one.is_complete),
        ]

    def as_json(self) -> str:
        """One line for machines: events handled, messages received."""
        events = sum(journey.handled is not None for journey in self.journeys)
        emails = sum(journey.mail is not None for journey in self.journeys)
        arrived = [message.channel for message in self.messages if message.is_complete]
        line = {
            "ok": not self.missing,
            "events": events,
            "emails": emails,
            "sms": arrived.count("SMS"),
            "webhooks": arrived.count("WEBHOOK"),
            "documents": sum(one.is_complete for one in self.documents),
            "workflows": sum(one.is_complete for one in self.workflows),
            "elapsedMs": self.elapsed_ms,
        }
        return json.dumps(line, separators=(",", ":"))


def main(arguments: list[str]) -> int:
    """Run it and return the exit code: 0 when everything arrived, 1 when not, 130 or 143 when told to stop before."""
    options = _options(arguments)
    log_warnings_only()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return first_run(as_json=options.json, stay=options.serve)
    except KeyboardInterrupt as interruption:
        say("told to stop: everything is down")
        return SIGNAL_BASE + int(interruption.args[0])
    except FAILURES as error:
        say(f"failed: {error}")
        return 1


def first_run(*, as_json: bool, stay: bool) -> int:
    """From nothing to received mails, and back to nothing."""
    data = DATA.absolute()
    with claimed_place(data) as place:
        if place != data:
            say(f"another `./dev run` is using {data}, so this one uses {place} (`./dev shell` sees the other one)")
        return run_in(place, start_lock=data / "starting", as_json=as_json, stay=stay)


def run_in(place: Path, *, start_lock: Path, as_json: bool, stay: bool) -> int:
    """Start everything, follow the events, stop everything."""
    with running_stack(place, say, start_lock=start_lock) as stack:
        result = send_and_follow(stack)
        report(result)
        if as_json:
            show(result.as_json())
        if stay:
            serve(stack, place)
    return 1 if result.missing else 0


def send_and_follow(stack: Stack) -> Result:
    """Commit the events and wait for what they cause."""
    events, redis_url = sample_events(), stack.variables["REDIS_URL"]
    database_url = stack.variables["DATABASE_URL"]
    prepare_workflow(database_url)
    say(f"committing {len(events)} events to domain_event_outbox, each in its own transaction")
    say("queueing an SMS, while the company that sends them is out, a webhook, and a PDF, a scan and a DOCX to be read")
    started = time.monotonic()
    documents = queue_documents(redis_url, stack.objects)
    # Not for long: five failures in a row would open its circuit for a minute.
    with out_for_a_while(stack.neighbours.company):
        messages = queue_messages(redis_url, stack.neighbours)
        commit(database_url, events)
        wait_until_put_off(redis_url, messages, seconds=PUT_OFF_SECONDS)
    wait_for_mails(stack, events)
    journeys = settled_journeys(redis_url, events, stack.mailbox.messages, seconds=SETTLING_SECONDS)
    messages = settled(redis_url, messages, stack.neighbours, seconds=SETTLING_SECONDS)
    documents = found_documents(database_url, documents, seconds=READING_SECONDS)
    starting = [str(event.id) for event in events if event.event_type == "lead.converted"]
    workflows = finished_runs(database_url, starting, seconds=SETTLING_SECONDS)
    return Result(journeys, messages, documents, workflows, round((time.monotonic() - started) * 1000))


@contextmanager
def out_for_a_while(company: SmsServer) -> Iterator[None]:
    """Have nobody listen where the company was, until the block ends."""
    company.stop()
    try:
        yield
    finally:
        company.start()


def wait_for_mails(stack: Stack, events: Sequence[SampleEvent]) -> None:
    """Block until every mail is here or too much time has passed. Raises WorkerFailedError when a worker dies."""
    expected = {event.notification_id for event in events} - {None}
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while time.monotonic() < deadline:
        if stack.mailbox.wait_until(
            lambda mails: expected <= {mail.header(NOTIFICATION_HEADER) for mail in mails}, seconds=CHECK_SECONDS
        ):
            return
        stack.check()


def report(result: Result) -> None:
    """Show what travelled where and when, and name what did not arrive."""
    tables = (
        table(result.journeys),
        message_table(result.messages),
        document_table(result.documents),
        workflow_table(result.workflows),
    )
    show("\n" + "\n\n".join(tables) + "\n")
    for sentence in result.missing:
        say(f"did not arrive: {sentence}")


def serve(stack: Stack, place: Path) -> None:
    """Keep everything up until told to stop, which is the good end of it. Raises WorkerFailedError when one dies."""
    events, _, notifications, *_ = stack.workers
    say(f"""\
Everything stays up until Ctrl-C. Things to try, in another terminal:
  ./dev shell -c 'psql -f shared/embedded_stack/one_lead.sql'         commit an event (edit the file first, or not)
  ls -t '{place / "mails"}'
  ./dev shell -c 'psql -c "TABLE domain_event_outbox ORDER BY position DESC LIMIT 3"'
  ./dev shell -c 'intelliflow documents search "Who pays for repairs?" --tenant first-run'
  ./dev shell -c 'intelliflow workflow list --org first-run'
  ./dev shell -c 'redis-cli LLEN intelliflow:notifications:email:wait'
  curl {events.url}/health/detailed
  curl {notifications.url}/metrics
  tail -f '{notifications.log}'
""")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(CHECK_SECONDS)
            stack.check()


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev run", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="keep everything up afterwards, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="end with one machine-readable line on standard output")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
