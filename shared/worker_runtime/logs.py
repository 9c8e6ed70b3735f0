"""Logs: structlog, one JSON line an event on stdout (pretty on a terminal), secrets and personal data masked.

    import structlog
    log = structlog.get_logger()
    log.info("mail_accepted", provider="smtp")

`worker`, and within a job `queue`, `jobId`, `attempt`, `correlationId` and `traceId`, are in every line by themselves.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from worker_runtime.redaction import redact, redact_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["JobInHand", "bound", "configure", "flush", "job_in_hand", "redact"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
# Chatty at their own `info` about what our lines already say.
QUIET_LIBRARIES = ("aiohttp.access", "asyncio", "opentelemetry", "urllib3")


class JobInHand(NamedTuple):
    """What a line logged while a job runs says of it."""

    queue: str
    job_id: str
    attempt: int


# One variable for each job and read only when a line is written: binding three names costs a tenth of a job's CPU.
job_in_hand: ContextVar[JobInHand | None] = ContextVar("job_in_hand", default=None)


def configure(level: str, worker: str) -> None:
    """Set up logging for the process; may be called again. `level` is debug, info, warn or error."""
    threshold, out = LEVELS[level], _Stdout()
    shared, render = _steps(), _renderer()
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(out),  # type: ignore[arg-type]  # only write and flush are used
        cache_logger_on_first_use=False,
    )
    _route_standard_library(threshold, out, shared, render)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(worker=worker)


@contextlib.contextmanager
def bound(**values: Any) -> Iterator[None]:
    """Bind names to every line logged inside; what is `None` is left out."""
    with structlog.contextvars.bound_contextvars(
        **{name: value for name, value in values.items() if value is not None}
    ):
        yield


def flush() -> None:
    """Write out what is buffered; called before a process ends without Python's own farewell."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()


def add_job(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Say which job a line is about."""
    if (job := job_in_hand.get()) is not None:
        event.setdefault("queue", job.queue)
        event.setdefault("jobId", job.job_id)
        event.setdefault("attempt", job.attempt)
    return event


def redact_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Mask secrets and personal data in every value of a line."""
    return {name: redact_value(name, value) for name, value in event.items()}


def _steps() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        add_job,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.format_exc_info,
        redact_event,
    ]


def _renderer() -> list[Processor]:
    if sys.stdout.isatty():
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]


def _route_standard_library(threshold: int, out: _Stdout, shared: list[Processor], render: list[Processor]) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)


class _Stdout:
    """Today's stdout, whose reader may be gone: a line nobody reads is no reason to lose a job."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return sys.stdout.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
