"""`api.call`: one request to somebody's API, through the guard of all HTTP that leaves a worker."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from procrastinate import JobContext  # noqa: TC002  a task's annotations are read by whoever inspects it
from pydantic import AfterValidator, Field, model_validator

from jobs_worker.app import job_queue
from jobs_worker.arguments import Arguments, read_arguments
from jobs_worker.backoff import Backoff
from jobs_worker.deadline import deadline
from jobs_worker.identity import idempotency_key
from jobs_worker.services import services_of
from worker_runtime.egress.calls import Call, Method, Status, answered, refuse_header, refuse_url

__all__ = ["Request", "call"]

TIMEOUT_SECONDS = 30.0
LONGEST_SECONDS = 110.0


def _url(text: str) -> str:
    refuse_url(text)
    return text


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        try:
            refuse_header(name)
        except ValueError as refusal:
            raise ValueError(f"{name} {refusal}") from refusal
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name} is not one line of ASCII")
    return headers


class Request(Arguments):
    """What is sent, and which statuses are a success: any 2xx unless `expect` says otherwise."""

    method: Method
    url: Annotated[str, AfterValidator(_url)]
    json_: Any = Field(None, alias="json")
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)
    expect: list[Status] | None = Field(None, min_length=1)
    timeout_seconds: float = Field(TIMEOUT_SECONDS, gt=0, le=LONGEST_SECONDS)

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if self.method == "GET" and self.json_ is not None:
            raise ValueError("json is not for GET")
        return self

    def body(self) -> tuple[dict[str, str], bytes | None]:
        """Return the header that tells what the body is, and the body."""
        if self.json_ is None:
            return {}, None
        return {"Content-Type": "application/json"}, json.dumps(self.json_, allow_nan=False).encode()


@job_queue.task(name="api.call", queue="api", pass_context=True, retry=Backoff())
@deadline(120)
async def call(context: JobContext, /, **arguments: Any) -> None:
    """Send it once; every attempt carries the same `Idempotency-Key`. No redirect is followed.

    The arguments are those of `Request`. No answer, 408, 425, 429 and 5xx are tried again, no sooner than the server's
    `Retry-After` asks; any other unexpected status is final.
    """
    request = read_arguments(Request, arguments)
    content_type, body = request.body()
    headers = content_type | {name.title(): value for name, value in request.headers.items()}
    one = Call(request.method, request.url, idempotency_key(context), body, headers)
    await answered(services_of(context).http, one, request.timeout_seconds, request.expect)
