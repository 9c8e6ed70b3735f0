"""`./dev run`: real servers, both workers, twenty committed events, and a table of what became of them."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedded_stack.binaries import ProgramMissingError
from embedded_stack.journey import NOTIFICATION_HEADER, Journey, settled_journeys, table
from embedded_stack.place import claimed_place
from embedded_stack.sample_events import SampleEvent, commit, sample_events
from embedded_stack.server import ServerFailedError
from embedded_stack.stack import Stack, running_stack
from embedded_stack.worker_process import WorkerFailedError
from worker_ops.migrations import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(".data")
ARRIVAL_SECONDS = 90.0
SETTLING_SECONDS = 10.0
CHECK_SECONDS = 0.5
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True)
class Result:
    """What `--json` prints; the time is from the first commit to the last mail's job being done."""

    journeys: list[Journey]
    elapsed_ms: int

    @property
    def missing(self) -> list[Journey]:
        """What did not arrive."""
        return [journey for journey in self.journeys if not journey.is_complete]

    def as_json(self) -> str:
        """One line for machines."""
        emails = sum(journey.mail is not None for journey in self.journeys)
        events = sum(journey.handled is not None for journey in self.journeys)
        return json.dumps({"ok": not self.missing, "events": events, "emails": emails, "elapsedMs": self.elapsed_ms})


def main(arguments: list[str]) -> int:
    """Run it and return the exit code: 0 when everything arrived, 1 when not, 130 when interrupted before that."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with claimed_place(DATA.absolute()) as place, running_stack(place, say) as stack:
            result = send_and_follow(stack)
            report(result, as_json=options.json)
            if options.serve:
                serve(stack, place)
    except KeyboardInterrupt:
        say("interrupted: everything is stopped")
        return INTERRUPTED
    except (ServerFailedError, ProgramMissingError, WorkerFailedError, MigrationError, OSError) as error:
        say(f"failed: {error}")
        return 1
    return 1 if result.missing else 0


def send_and_follow(stack: Stack) -> Result:
    """Commit the events and wait for what they cause."""
    events = sample_events()
    say(f"committing {len(events)} events to domain_event_outbox, one transaction each")
    started = time.monotonic()
    commit(stack.variables["DATABASE_URL"], events)
    wait_for_mails(stack, events)
    journeys = settled_journeys(stack.variables["REDIS_URL"], events, stack.mailbox.messages, seconds=SETTLING_SECONDS)
    return Result(journeys, round((time.monotonic() - started) * 1000))


def wait_for_mails(stack: Stack, events: list[SampleEvent]) -> None:
    """Block until every mail is here, a worker has died, or too much time has passed (what is missing shows then)."""
    expected = {event.notification_id for event in events} - {None}
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while time.monotonic() < deadline:
        if stack.mailbox.wait_until(
            lambda mails: expected <= {mail.header(NOTIFICATION_HEADER) for mail in mails}, seconds=CHECK_SECONDS
        ):
            return
        stack.check()


def report(result: Result, *, as_json: bool) -> None:
    """Show the table on standard output, then the line for machines if it is wanted."""
    print(f"\n{table(result.journeys)}\n")
    for journey in result.missing:
        say(f"did not arrive: {journey.event.event_type} {journey.event.id}: {journey.stopped_at}")
    if as_json:
        print(result.as_json())
    sys.stdout.flush()


def serve(stack: Stack, place: Path) -> None:
    """Keep everything up until Ctrl-C or SIGTERM, which is the good end of it."""
    events, notifications = stack.workers
    say(
        f"""
Everything stays up until Ctrl-C. Try, in another terminal:
  ./dev shell -c 'redis-cli LLEN intelliflow:events:wait'
  ./dev shell -c 'psql -c "SELECT status, count(*) FROM domain_event_outbox GROUP BY status"'
  curl {events.url}/health/detailed
  curl {notifications.url}/metrics
  tail -f '{notifications.log}'
  ls '{place / "mails"}'
or commit an event of your own:
  ./dev shell -c 'psql -c "{YOUR_OWN_EVENT}"'
"""
    )
    with suppressed_interrupt():
        while True:
            time.sleep(CHECK_SECONDS)
            stack.check()


YOUR_OWN_EVENT = (
    "INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload) VALUES "
    "(gen_random_uuid(), \\$\\$lead.created\\$\\$, \\$\\$Lead\\$\\$, \\$\\$lead-1\\$\\$, \\$\\$t1\\$\\$, "
    "jsonb_build_object(\\$\\$leadId\\$\\$, \\$\\$lead-1\\$\\$, \\$\\$tenantId\\$\\$, \\$\\$t1\\$\\$, "
    "\\$\\$email\\$\\$, \\$\\$you@example.com\\$\\$))"
)


@contextmanager
def suppressed_interrupt() -> Iterator[None]:
    """End the block quietly when interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        return


def say(text: str) -> None:
    """Tell the person at the terminal; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev run", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="keep everything up afterwards, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="end with one machine-readable line on standard output")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
