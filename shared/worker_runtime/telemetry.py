"""Traces: OpenTelemetry's API, exported over OTLP/HTTP when an endpoint is set, and nearly free when none is.

The context crosses a queue in the job option `tm` as bullmq-otel writes it: a JSON string of the W3C carrier.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker_runtime import logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    from worker_runtime.logs import JobInHand

FLUSH_SECONDS = 2.0
NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
_propagator = TraceContextTextMapPropagator()


class _Export:
    """Where spans go; nowhere until `configure` says otherwise."""

    provider: TracerProvider | None = None


def configure(endpoint: str | None, *, worker: str, version: str) -> None:
    """Export spans to `endpoint` (OTLP over HTTP, without `/v1/traces`); without one nothing is recorded."""
    if endpoint is None:
        return
    # Imported here: a process that exports nothing does not pay 60 ms and 15 MB for the SDK.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": worker, "service.version": version}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    _Export.provider = provider


def shut_down() -> None:
    """Send what is left, for `FLUSH_SECONDS` at most: a collector that hangs may not keep a process alive."""
    if (provider := _Export.provider) is not None:
        _Export.provider = None
        flush = threading.Thread(target=provider.shutdown, name="telemetry flush", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


def extract(carrier: str | None) -> Context | None:
    """Read the context out of a job's `tm`; `None` when there is none that can be read."""
    if not carrier:
        return None
    try:
        fields = json.loads(carrier)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    return _propagator.extract({key: value for key, value in fields.items() if isinstance(value, str)})


def inject() -> str | None:
    """Write the current context as a job's `tm`; `None` when there is none."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return json.dumps(carrier)


def job_span(job: JobInHand, name: str, carrier: Any) -> AbstractContextManager[None]:
    """Run a job as a child of what added it. Without an exporter a received context is only passed on."""
    if _Export.provider is None and carrier is None:
        return NOTHING
    return _job_span(job, name, carrier if isinstance(carrier, str) else None)


@contextlib.contextmanager
def _job_span(job: JobInHand, name: str, carrier: str | None) -> Iterator[None]:
    token = otel_context.attach(extract(carrier) or otel_context.get_current())
    try:
        with _span(job, name), logs.bound(traceId=current_trace_id()):
            yield
    finally:
        otel_context.detach(token)


def _span(job: JobInHand, name: str) -> AbstractContextManager[Any]:
    if (provider := _Export.provider) is None:
        return NOTHING
    attributes: dict[str, str | int] = {
        "messaging.system": "bullmq",
        "messaging.destination.name": job.queue,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": job.job_id,
        "bullmq.queue.name": job.queue,
        "bullmq.job.name": name,
        "bullmq.job.id": job.job_id,
        "bullmq.job.attempts.made": job.attempt,
    }
    tracer = provider.get_tracer("worker_runtime")
    return tracer.start_as_current_span(f"process {job.queue}", kind=trace.SpanKind.CONSUMER, attributes=attributes)


def work_span(name: str, carrier: str | None, attributes: Mapping[str, str | int]) -> AbstractContextManager[None]:
    """Run something that is no job as a child of `carrier`, or of what is under way here."""
    if _Export.provider is None and carrier is None:
        return NOTHING
    return _work_span(name, carrier, attributes)


@contextlib.contextmanager
def _work_span(name: str, carrier: str | None, attributes: Mapping[str, str | int]) -> Iterator[None]:
    token = otel_context.attach(extract(carrier) or otel_context.get_current())
    provider = _Export.provider
    tracer = None if provider is None else provider.get_tracer("worker_runtime")
    try:
        span = tracer.start_as_current_span(name, attributes=attributes) if tracer else NOTHING
        with span, logs.bound(traceId=current_trace_id()):
            yield
    finally:
        otel_context.detach(token)


def current_trace_id() -> str | None:
    """Return the trace id that logs carry, 32 hexadecimal digits; `None` outside a trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
