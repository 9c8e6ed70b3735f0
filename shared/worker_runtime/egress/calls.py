"""A request to somebody's API: what may be asked of the author of one, and what an answer means to the work it is for.

Steps of workflows and tasks call APIs by the same rules.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field

from worker_runtime.egress.addresses import EgressRefused, read_url
from worker_runtime.egress.failures import NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import PermanentError
from worker_runtime.telemetry import inject

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from worker_runtime.egress.client import EgressReply

__all__ = ["Asking", "Call", "CallFailed", "Method", "Status", "answered", "refuse_header", "refuse_url"]

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Status = Annotated[int, Field(ge=200, le=599)]
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OURS = frozenset(
    {"connection", "content-length", "host", "idempotency-key", "te", "traceparent", "transfer-encoding", "upgrade"}
)
SUCCESSES = range(200, 300)
REDIRECTS = range(300, 400)
AGAIN = frozenset({408, 425, 429, *range(500, 600)})


class CallFailed(Exception):
    """The request failed, and another one may not. `floor_seconds`: the server wants to be left alone for so long."""

    def __init__(self, code: str, sentence: str, floor_seconds: float = 0.0) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.floor_seconds = floor_seconds


class Asking(Protocol):
    """What a call needs of HTTP: `EgressClient` is one."""

    async def request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_seconds: float, /
    ) -> EgressReply:
        """Send a request; raises `EgressRefused`, `NotReached` or `NoAnswer`."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request. However often it is tried, `idempotency_key` is the same, and is sent as `Idempotency-Key`."""

    method: Method
    url: str
    idempotency_key: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def refuse_header(name: str) -> None:
    """Raise `ValueError` for a name that is none, or that of a header which the worker sets."""
    if not HEADER.fullmatch(name):
        raise ValueError("is no name of a header")
    if name.lower() in OURS:
        raise ValueError("is set by the worker")


def refuse_url(url: str) -> None:
    """Raise `ValueError` for what is no URL that may be requested, as far as it can be told without a look-up."""
    try:
        read_url(url)
    except EgressRefused as refusal:
        raise ValueError(str(refusal)) from refusal


async def answered(http: Asking, call: Call, seconds: float, expect: Collection[int] | None) -> EgressReply:
    """Send it once and return the answer if its status is one of `expect` (any 2xx of `None`). Follows no redirect.

    Raises `CallFailed` for what another try may cure: no answer within `seconds`, 408, 425, 429 and 5xx; of anything
    else `PermanentError`.
    """
    carrier: dict[str, str] = json.loads(inject() or "{}")
    headers = {**call.headers, "Idempotency-Key": call.idempotency_key, **carrier}
    try:
        reply = await http.request(call.method, call.url, call.body, headers, seconds)
    except EgressRefused as refusal:
        raise PermanentError("EGRESS_REFUSED", str(refusal)) from refusal
    except NotReached as failure:
        raise CallFailed("NOT_REACHED", str(failure)) from failure
    except NoAnswer as failure:
        raise CallFailed("NO_ANSWER", str(failure)) from failure
    _judge(reply, SUCCESSES if expect is None else expect)
    return reply


def _judge(reply: EgressReply, expect: Collection[int]) -> None:
    if reply.status in expect:
        return
    code = f"HTTP_{reply.status}"
    if reply.status in AGAIN:
        floor = retry_after(reply.headers.get("retry-after"), time.time()) or 0.0
        raise CallFailed(code, "the server asks to try later, or has failed", floor)
    raise PermanentError(code, "redirects are not followed" if reply.status in REDIRECTS else "the server refused")
