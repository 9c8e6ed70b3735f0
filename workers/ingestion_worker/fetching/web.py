"""Documents of the web: strangers' servers, asked through the guard that webhooks leave by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ingestion_worker.fetching.failed import FetchFailed
from ingestion_worker.fetching.names import charset_of, media_type_of, name_of
from ingestion_worker.fetching.source import Origin
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingestion_worker.fetching.landing import Landing
    from worker_runtime.egress import EgressClient, Patience, StreamedReply

__all__ = ["Web", "outcome_of_answer", "outcome_of_failure"]

HEADERS = {"User-Agent": "IntelliFlow-Documents/1"}
# 203: a proxy on the way has changed something about it.
WHOLE = frozenset({200, 203})
MISSING = frozenset({404, 410})
TRY_LATER = frozenset({408, 425, 429})
THROTTLED = 429
THROTTLED_FLOOR_SECONDS = 60.0
AS_IT_IS = frozenset({"", "identity"})


class Web:
    """See `Source`. `now` dates a server's `Retry-After`, in seconds since the epoch."""

    def __init__(self, client: EgressClient, patience: Patience, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._patience = patience
        self._now = now

    async def fetch(self, url: str, landing: Landing) -> Origin:
        """See `Source`."""
        try:
            async with self._client.streamed(url, HEADERS, self._patience) as reply:
                self._accept(reply)
                landing.expect(reply.size)
                while piece := await reply.piece():
                    await landing.take(piece)
        except (EgressRefused, NotReached, NoAnswer) as failure:
            raise FetchFailed(outcome_of_failure(failure)) from failure
        return _origin(reply, url)

    def _accept(self, reply: StreamedReply) -> None:
        if reply.status not in WHOLE:
            wait = retry_after(reply.headers.get("Retry-After"), self._now()) or 0.0
            raise FetchFailed(outcome_of_answer(reply.host, reply.status, wait))
        encoding = reply.headers.get("Content-Encoding", "").strip().lower()
        transfer = reply.headers.get("Transfer-Encoding", "").strip().lower()
        if encoding not in AS_IT_IS or transfer not in {*AS_IT_IS, "chunked"}:
            reason = f"{reply.host} sent the document compressed, though it was asked not to: it is not unpacked"
            raise FetchFailed(DeadLetter("FETCH_REFUSED", reason))


def outcome_of_answer(host: str, status: int, wait_seconds: float = 0.0) -> Retry | DeadLetter:
    """Decide what follows an answer that is no document. `wait_seconds`: what the server asked for."""
    answered = f"{host} answered {status}"
    if status in MISSING:
        return DeadLetter("DOCUMENT_MISSING", f"{answered}: there is no document at sourceUrl")
    if status == THROTTLED:
        floor = max(wait_seconds, THROTTLED_FLOOR_SECONDS)
        return Retry("FETCH_THROTTLED", f"{answered}: it is asked for too much at once", floor)
    if status in TRY_LATER or status >= 500:  # noqa: PLR2004  the range of servers' failures
        return Retry("FETCH_FAILED", answered, wait_seconds)
    return DeadLetter("FETCH_REFUSED", f"{answered}: sourceUrl must be one that anybody may read, or a signed one")


def outcome_of_failure(failure: EgressRefused | NotReached | NoAnswer) -> Retry | DeadLetter:
    """Decide what follows when there was no answer, or half of one."""
    match failure:
        case EgressRefused():
            return DeadLetter("EGRESS_REFUSED", str(failure))
        case NotReached():
            return Retry("FETCH_UNREACHABLE", str(failure))
        case NoAnswer():
            return Retry("FETCH_INTERRUPTED", str(failure))


def _origin(reply: StreamedReply, asked: str) -> Origin:
    content_type = reply.headers.get("Content-Type")
    name = name_of(reply.headers.get("Content-Disposition"), reply.url, asked)
    return Origin(name, media_type_of(content_type), charset_of(content_type))
