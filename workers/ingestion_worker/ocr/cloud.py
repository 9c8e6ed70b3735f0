"""What the engines in clouds have in common: one request a page, behind a circuit breaker, and what its end means."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ingestion_worker.ocr.engine import EngineFailed
from worker_runtime.breaker import CircuitOpen
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import Defer, Hold, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ingestion_worker.ocr.engine import PictureTooLarge
    from ingestion_worker.problem import DocumentError
    from worker_runtime.breaker import Breaker, Call
    from worker_runtime.egress import EgressClient, EgressReply

__all__ = ["ANSWER_BYTES", "CALL_SECONDS", "Circuit", "CloudClient", "Refusal", "Verdict", "judged", "mean_confidence"]

CALL_SECONDS = 60.0
# A page of small print with a frame around every word has two million.
ANSWER_BYTES = 8_388_608
PAUSE_SECONDS = 5.0
RATE_LIMIT_SECONDS = 30.0
OK, THROTTLED, SERVER_ERROR = 200, 429, 500
_MISCONFIGURED = {401, 402, 403, 404, 405, 407}


class Circuit(Enum):
    """What a refused call says about the service."""

    WORKS = "works"  # It answered; this page is the problem.
    FAILED = "failed"  # It is out, or about to be.
    MISCONFIGURED = "misconfigured"  # It will refuse every page until somebody acts.


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the caller is to be told, and what the circuit is."""

    error: EngineFailed | DocumentError | PictureTooLarge
    circuit: Circuit = Circuit.WORKS


# The words that were read, or why not.
Verdict = dict[str, Any] | Refusal


class CloudClient:
    """Sends requests to one service."""

    def __init__(self, name: str, http: EgressClient, breaker: Breaker) -> None:
        self._name = name
        self._http = http
        self._breaker = breaker

    async def ask(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        judge: Callable[[EgressReply, dict[str, Any]], Verdict],
    ) -> dict[str, Any]:
        """Send a page once; `judge` reads the answer. Raises what `OcrEngine.recognise` does."""
        try:
            async with self._breaker.guard() as call:
                verdict = await self._verdict(url, body, headers, judge)
                if isinstance(verdict, Refusal):
                    tell(call, verdict)
        except CircuitOpen as circuit:
            reason = f"the circuit of {circuit.dependency} is open"
            raise EngineFailed(Hold("CIRCUIT_OPEN", reason, circuit.seconds)) from circuit
        if isinstance(verdict, Refusal):
            raise verdict.error
        return verdict

    async def _verdict(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        judge: Callable[[EgressReply, dict[str, Any]], Verdict],
    ) -> Verdict:
        try:
            reply = await self._http.post(url, body, headers, CALL_SECONDS)
        except EgressRefused as failure:
            return misconfigured(f"{self._name}: {failure}")
        except NotReached as failure:
            return out(f"{self._name}: {failure}")
        except NoAnswer as failure:
            return broken(f"{self._name}: {failure}")
        told = parsed(reply)
        if told is None and reply.status == OK:
            return broken(f"{self._name} answered with something unreadable")
        return judge(reply, told or {})


def tell(call: Call, refusal: Refusal) -> None:
    """Tell the circuit."""
    match refusal.circuit:
        case Circuit.FAILED:
            call.failed(str(refusal.error))
        case Circuit.MISCONFIGURED:
            call.failed_for_good(str(refusal.error))
        case Circuit.WORKS:
            pass


def parsed(reply: EgressReply) -> dict[str, Any] | None:
    """Return the JSON object that was answered, if it is one, and came whole."""
    try:
        told = json.loads(reply.body) if reply.whole else None
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def judged(name: str, reply: EgressReply, code: str = "") -> Refusal:
    """Say what follows from an HTTP status, for an error whose own code says no more."""
    sentence = f"{name} answered {reply.status} {code}".rstrip()
    told = retry_after(reply.headers.get("Retry-After"), time.time())
    if reply.status == THROTTLED:
        return throttled(sentence, told)
    if reply.status in _MISCONFIGURED or reply.status < 400:  # noqa: PLR2004  what redirects is not the service
        return misconfigured(sentence)
    return broken(sentence, told or 0.0, is_out=reply.status >= SERVER_ERROR)


def misconfigured(sentence: str) -> Refusal:
    """Nobody's page is read until somebody acts: the backlog waits."""
    return Refusal(EngineFailed(Defer("PROVIDER_MISCONFIGURED", sentence, PAUSE_SECONDS)), Circuit.MISCONFIGURED)


def throttled(sentence: str, seconds: float | None = None) -> Refusal:
    """Too much at once; costs no attempt."""
    wait = RATE_LIMIT_SECONDS if seconds is None else max(seconds, 1.0)
    return Refusal(EngineFailed(Defer("RATE_LIMITED", sentence, wait)))


def out(sentence: str) -> Refusal:
    """It was not reached: no fault of the page."""
    return Refusal(EngineFailed(Defer("PROVIDER_UNAVAILABLE", sentence, PAUSE_SECONDS)), Circuit.FAILED)


def broken(sentence: str, floor: float = 0.0, *, is_out: bool = True) -> Refusal:
    """It failed over this page, which may or may not be the page's doing: costs an attempt."""
    return Refusal(EngineFailed(Retry("PROVIDER_ERROR", sentence, floor)), Circuit.FAILED if is_out else Circuit.WORKS)


def mean_confidence(values: list[float]) -> float | None:
    """Return the mean over the words, from 0 to 1; nothing for no words."""
    return min(max(sum(values) / len(values), 0.0), 1.0) if values else None
