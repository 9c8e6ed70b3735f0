"""`http`: a request to somebody's server, through the guard of all HTTP that leaves a worker."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.addresses import read_url
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import PermanentError
from worker_runtime.telemetry import inject
from workflow_worker.steps.http_reply import output_of
from workflow_worker.steps.http_url import way_out
from workflow_worker.steps.step import StepKind, TextField, ValuesField

if TYPE_CHECKING:
    from worker_runtime.egress import EgressReply
    from workflow_worker.context import StepCall
    from workflow_worker.steps.step import Occasion

__all__ = ["Http"]

TIMEOUT_SECONDS = 30.0
# The client's own time limit comes first: it says at which point the other side was silent.
AFTERWARDS_SECONDS = 1.0
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OURS = frozenset(
    {"connection", "content-length", "host", "idempotency-key", "te", "traceparent", "transfer-encoding", "upgrade"}
)
SUCCESSES = range(200, 300)
REDIRECTS = range(300, 400)
AGAIN = frozenset({408, 425, 429, *range(500, 600)})
Status = Annotated[int, Field(ge=200, le=599)]


class HttpFailed(Exception):
    """The request failed, and another one may not. `floor_seconds`: the server wants to be left alone for so long."""

    def __init__(self, code: str, sentence: str, floor_seconds: float = 0.0) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.floor_seconds = floor_seconds


class Http(StepKind):
    """One request; each try carries the same `Idempotency-Key`. No redirect is followed."""

    is_tried: ClassVar[bool] = True

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    url: TextField
    headers: dict[str, TextField] = Field(default_factory=dict)
    json_: ValuesField | None = Field(None, alias="json")
    body: TextField | None = None
    expect: list[Status] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _can_be_sent(self) -> Http:
        given = {key for key, value in (("json", self.json_), ("body", self.body)) if value is not None}
        if len(given) > 1:
            raise ValueError("has both json and body: a request has one of them")
        if given and self.method == "GET":
            raise ValueError(f"{min(given)} is not for GET")
        for name in self.headers:
            if not HEADER.fullmatch(name):
                raise ValueError(f"headers.{name}: is no name of a header")
            if name.lower() in OURS:
                raise ValueError(f"headers.{name}: is set by the worker")
        if "{" not in self.url.source:
            _refuse_url(self.url.source)
        return self

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is `{status, headers, body, truncated}`."""
        seconds = occasion.seconds(TIMEOUT_SECONDS)
        return await occasion.effect(lambda call: self._ask(occasion, call, seconds), seconds + AFTERWARDS_SECONDS)

    async def _ask(self, occasion: Occasion, call: StepCall, seconds: float) -> dict[str, Any]:
        url = str(occasion.value("url", self.url))
        if problem := way_out(self.url.source, url):
            raise occasion.failure("url", problem)
        content_type, body = self._body(occasion)
        headers = content_type | self._headers(occasion) | _own_headers(call)
        try:
            reply = await occasion.scene.services.http.request(self.method, url, body, headers, seconds)
        except EgressRefused as refusal:
            raise PermanentError("EGRESS_REFUSED", str(refusal)) from refusal
        except NotReached as failure:
            raise HttpFailed("NOT_REACHED", str(failure)) from failure
        except NoAnswer as failure:
            raise HttpFailed("NO_ANSWER", str(failure)) from failure
        self._judge(reply)
        return output_of(reply)

    def _body(self, occasion: Occasion) -> tuple[dict[str, str], bytes | None]:
        if self.json_ is not None:
            value = occasion.values("json", self.json_)
            return {"Content-Type": "application/json"}, json.dumps(value, allow_nan=False).encode()
        if self.body is not None:
            text = occasion.value("body", self.body)
            return {"Content-Type": "text/plain; charset=utf-8"}, text.encode("utf-8", "replace")
        return {}, None

    def _headers(self, occasion: Occasion) -> dict[str, str]:
        headers = {name.title(): str(occasion.value(f"headers.{name}", text)) for name, text in self.headers.items()}
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise occasion.failure(f"headers.{name}", "is not one line of ASCII")
        return headers

    def _judge(self, reply: EgressReply) -> None:
        if reply.status in (self.expect or SUCCESSES):
            return
        code = f"HTTP_{reply.status}"
        if reply.status in AGAIN:
            floor = retry_after(reply.headers.get("retry-after"), time.time()) or 0.0
            raise HttpFailed(code, "the server asks to try later, or has failed", floor)
        raise PermanentError(code, "redirects are not followed" if reply.status in REDIRECTS else "the server refused")


def _refuse_url(url: str) -> None:
    try:
        read_url(url)
    except EgressRefused as refusal:
        raise ValueError(f"url: {refusal}") from refusal


def _own_headers(call: StepCall) -> dict[str, str]:
    carrier: dict[str, str] = json.loads(inject() or "{}")
    return {"Idempotency-Key": call.idempotency_key} | carrier
