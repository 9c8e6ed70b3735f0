"""Spans on their way to a collector that is a real HTTP server."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from worker_runtime import logs, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collector(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receive)
        self.received: list[tuple[str, bytes]] = []


class Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_job_is_a_child_of_what_added_it_in_the_collector_too(collector: Collector) -> None:
    telemetry.configure(f"http://127.0.0.1:{collector.server_port}/", worker="events-worker", version="1.0")
    carrier = '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    with telemetry.job_span(logs.JobInHand("intelliflow:events", "7", 2), "lead.created", carrier):
        passed_on = json.loads(telemetry.inject() or "")["traceparent"]
    telemetry.shut_down()
    ((path, body),) = collector.received
    resource = ExportTraceServiceRequest.FromString(body).resource_spans[0]
    span = resource.scope_spans[0].spans[0]
    attributes = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
    assert path == "/v1/traces"
    assert span.name == "process intelliflow:events"
    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert span.span_id.hex() == passed_on.split("-")[2]
    assert attributes["messaging.message.id"] == "7"
    assert attributes["bullmq.job.attempts.made"] == 2
    assert {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"] == "events-worker"


def test_a_collector_that_hangs_does_not_keep_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        telemetry.configure(f"http://127.0.0.1:{silent.getsockname()[1]}", worker="w", version="1")
        with telemetry.job_span(logs.JobInHand("q", "1", 1), "n", None):
            pass
        began = time.monotonic()
        telemetry.shut_down()
        assert time.monotonic() - began < 4
