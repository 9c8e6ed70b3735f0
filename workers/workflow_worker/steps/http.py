"""`http`: a request to somebody's server, through the guard of all HTTP that leaves a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from worker_runtime.egress.calls import Call, Method, Status, answered, refuse_header, refuse_url
from workflow_worker.steps.http_reply import output_of
from workflow_worker.steps.http_url import way_out
from workflow_worker.steps.step import StepKind, TextField, ValuesField

if TYPE_CHECKING:
    from collections.abc import Callable

    from workflow_worker.context import StepCall
    from workflow_worker.steps.step import Occasion

__all__ = ["Http"]

TIMEOUT_SECONDS = 30.0
# The client's own time limit comes first: it says at which point the other side was silent.
AFTERWARDS_SECONDS = 1.0


class Http(StepKind):
    """One request; each try carries the same `Idempotency-Key`. No redirect is followed."""

    is_tried: ClassVar[bool] = True

    method: Method
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
            _at(f"headers.{name}", refuse_header, name)
        if "{" not in self.url.source:
            _at("url", refuse_url, self.url.source)
        return self

    async def run(self, occasion: Occasion) -> Any:
        """See `StepKind`. The output is `{status, headers, body, truncated}`."""
        seconds = occasion.seconds(TIMEOUT_SECONDS)
        return await occasion.effect(lambda step: self._ask(occasion, step, seconds), seconds + AFTERWARDS_SECONDS)

    async def _ask(self, occasion: Occasion, step: StepCall, seconds: float) -> dict[str, Any]:
        url = str(occasion.value("url", self.url))
        if problem := way_out(self.url.source, url):
            raise occasion.failure("url", problem)
        content_type, body = self._body(occasion)
        call = Call(self.method, url, step.idempotency_key, body, content_type | self._headers(occasion))
        return output_of(await answered(occasion.scene.services.http, call, seconds, self.expect))

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


def _at(place: str, refuse: Callable[[str], None], value: str) -> None:
    try:
        refuse(value)
    except ValueError as refusal:
        raise ValueError(f"{place}: {refusal}") from refusal
