"""What a receiver's answer, or its silence, means for a job and for the endpoint's circuit: pure rules.

Only 2xx is success, and only 410 is final unless the endpoint says otherwise: a receiver that answers 401 or 404 while
it is being deployed would lose what it never saw.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from notifications_worker.channel import Circuit, Verdict
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Retry
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["GONE", "accepted", "excerpt", "retry_after", "verdict_on_answer", "verdict_on_failure"]

GONE = 410
THROTTLED = 429
OVERLOADED = frozenset({THROTTLED, 502, 503, 504})
OVERLOAD_FLOOR_SECONDS = 60.0
KEPT_TEXT_BYTES = 16_384
# PostgreSQL cannot store the first, and no log needs the others.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def accepted(status: int) -> bool:
    """Tell whether the receiver took the message."""
    return 200 <= status < 300  # noqa: PLR2004  the range is what the specification says


def verdict_on_answer(
    status: int, headers: Mapping[str, str], now: float, permanent_statuses: Collection[int] = ()
) -> Verdict:
    """Decide what follows an answer other than 2xx. `now` is in seconds since the epoch."""
    if status == GONE:
        reason = "the receiver answered 410 Gone: the endpoint has been disabled"
        return Verdict(DeadLetter("ENDPOINT_GONE", reason), Circuit.WORKS)
    if status in permanent_statuses:
        reason = f"the receiver answered {status}, which its endpoint has declared final"
        return Verdict(DeadLetter("WEBHOOK_REJECTED", reason), Circuit.WORKS)
    return Verdict(Retry(*_code_and_reason(status), _floor(status, headers, now)), _circuit(status))


def verdict_on_failure(failure: EgressRefused | NotReached | NoAnswer) -> Verdict:
    """Decide what follows when there was no answer."""
    match failure:
        case EgressRefused():
            return Verdict(DeadLetter("EGRESS_REFUSED", str(failure)), Circuit.WORKS)
        case NotReached(timed_out=late):
            return Verdict(Retry("WEBHOOK_UNREACHABLE", str(failure), _patience(late=late)), Circuit.FAILED)
        case NoAnswer(timed_out=late):
            reason = f"{failure}: it may or may not have been taken"
            retry = Retry("WEBHOOK_UNANSWERED", reason, _patience(late=late))
            return Verdict(retry, Circuit.FAILED, unsent=False)


def _code_and_reason(status: int) -> tuple[str, str]:
    if 300 <= status < 400:  # noqa: PLR2004  the range of redirects
        return "WEBHOOK_REDIRECTED", f"the receiver answered {status}: no redirect is followed, change the endpoint"
    if status == THROTTLED:
        return "WEBHOOK_THROTTLED", f"the receiver answered {status}: it gets too much at once"
    return "WEBHOOK_REJECTED", f"the receiver answered {status}"


def _circuit(status: int) -> Circuit:
    # 429 comes from somebody who is well and wants less; the other 4xx are about this message or its signature.
    return Circuit.FAILED if status >= 500 else Circuit.WORKS  # noqa: PLR2004  the range of servers' failures


def _floor(status: int, headers: Mapping[str, str], now: float) -> float:
    asked = retry_after(headers.get("Retry-After", ""), now) or 0.0
    least = OVERLOAD_FLOOR_SECONDS if status in OVERLOADED else 0.0
    return max(least, asked)


def _patience(*, late: bool) -> float:
    return OVERLOAD_FLOOR_SECONDS if late else 0.0


def excerpt(body: bytes, content_encoding: str = "") -> str:
    """Return an answer's body as it may be kept: readable, personal data masked, at most 16 KiB in UTF-8."""
    if content_encoding not in {"", "identity"}:
        return f"({len(body)} bytes or more, compressed)"
    text = _CONTROL.sub("�", body.decode("utf-8", "backslashreplace"))
    return redact(text).encode()[:KEPT_TEXT_BYTES].decode("utf-8", "ignore")
