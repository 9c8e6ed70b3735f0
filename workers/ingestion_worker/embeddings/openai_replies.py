"""What an embedding service's answer, or its silence, means for a job and the circuit: pure rules.

Nothing is lost by asking twice but money, so whatever is not the text's own fault is asked again. What only an operator
can put right (a wrong key, a model that is not there, vectors of another length) opens the circuit and costs no
attempt.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from array import array
from typing import TYPE_CHECKING, Any

from ingestion_worker.embeddings.embedder import Blame, NotEmbedded
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Defer, Hold, Retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_runtime.egress import EgressReply

__all__ = ["FAILURES", "failed", "of_another_length", "refused", "unreadable", "vectors_in"]

FAILURES = (EgressRefused, NotReached, NoAnswer)
OUTAGE_PAUSE_SECONDS = 2.0
RATE_LIMIT_SECONDS = 20.0
SERVICE = "the embedding service"
# What the text, and nobody else, can be blamed for.
TEXT_REFUSED = frozenset({400, 413, 422})
TOO_MANY, TIMED_OUT, CONFLICT, SERVER_ERROR = 429, 408, 409, 500
# Said with 429 by an account that has no money left.
OUT_OF_QUOTA = "insufficient_quota"


def failed(failure: Exception) -> NotEmbedded:
    """Return what follows from one of `FAILURES`: no answer came at all."""
    sentence = f"{SERVICE}: {failure}"
    if isinstance(failure, EgressRefused):
        return _misconfigured(sentence)
    if isinstance(failure, NotReached):
        return NotEmbedded(Defer("PROVIDER_UNAVAILABLE", sentence, OUTAGE_PAUSE_SECONDS), Blame.PROVIDER)
    # It was sent: a text that the service dies of must not be sent for ever.
    return NotEmbedded(Retry("PROVIDER_UNAVAILABLE", sentence), Blame.PROVIDER)


def refused(reply: EgressReply, now: float) -> NotEmbedded:
    """Return what follows from any answer but a whole 200. Every answer has a consequence."""
    code = _code_of(reply)
    sentence = f"{SERVICE} answered {reply.status}" + (f" {code}" if code else "")
    wait = retry_after(reply.headers.get("Retry-After"), now)
    match reply.status:
        case 200:
            return unreadable("more than it may be, or not all of it in time")
        case status if status == TOO_MANY and code != OUT_OF_QUOTA:
            seconds = max(1.0, RATE_LIMIT_SECONDS if wait is None else wait)
            return NotEmbedded(Hold("RATE_LIMITED", sentence, seconds), Blame.NOBODY)
        case status if status in TEXT_REFUSED:
            remedy = "if it is too long for the model, lower EMBEDDING_CHUNK_TOKENS and ingest the document again"
            return NotEmbedded(DeadLetter("PROVIDER_REJECTED", f"{sentence}; {remedy}"), Blame.NOBODY)
        case status if status >= SERVER_ERROR or status in {TIMED_OUT, CONFLICT}:
            return NotEmbedded(Retry("PROVIDER_UNAVAILABLE", sentence, wait or 0.0), Blame.PROVIDER)
    return _misconfigured(f"{sentence}; look at EMBEDDING_API_KEY, EMBEDDING_BASE_URL and EMBEDDING_MODEL")


def unreadable(what: str) -> NotEmbedded:
    """Return what follows from an answer that claims success and is of no use, which may be due to the texts."""
    return NotEmbedded(Retry("PROVIDER_NOT_UNDERSTOOD", f"{SERVICE} answered with {what}"), Blame.PROVIDER)


def of_another_length(found: int, wanted: int) -> NotEmbedded:
    """Return what follows from vectors that cannot be compared with the others."""
    sentence = f"{SERVICE} answered with vectors of {found} numbers instead of {wanted}"
    return _misconfigured(f"{sentence}; look at EMBEDDING_MODEL and EMBEDDING_DIMENSIONS")


def vectors_in(body: bytes, count: int) -> list[Sequence[float]]:
    """Read an answer: for each text, in the order of the texts, the numbers. Raises `NotEmbedded`."""
    try:
        found = {one["index"]: _numbers(one["embedding"]) for one in json.loads(body)["data"]}
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        raise unreadable("something that holds no vectors") from None
    if set(found) != set(range(count)):
        raise unreadable(f"{len(found)} vectors for {count} texts, or without saying for which")
    return [found[index] for index in range(count)]


def _numbers(embedding: Any) -> Sequence[float]:
    """Read one vector, written as base64 of little-endian float32 or, by services that know no better, as numbers."""
    if not isinstance(embedding, str):
        return [float(number) for number in embedding]
    numbers = array("f", base64.b64decode(embedding, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _misconfigured(sentence: str) -> NotEmbedded:
    return NotEmbedded(Defer("PROVIDER_MISCONFIGURED", sentence, OUTAGE_PAUSE_SECONDS), Blame.CONFIGURATION)


def _code_of(reply: EgressReply) -> str:
    """Return the error's own code, and nothing of its words, which may quote the text."""
    try:
        error = json.loads(reply.body)["error"]
        code = error["code"] or error["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return code if isinstance(code, str) and code.isascii() and code.isidentifier() else ""
