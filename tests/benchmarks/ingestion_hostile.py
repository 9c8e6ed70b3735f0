"""What hostile documents do to the worker, and to the honest ones that wait behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostile_documents import hostile_documents
from hostile_feed import CONTAINED, MEBIBYTE, feed, watched

if TYPE_CHECKING:
    from document_desk import DocumentDesk

COLUMNS = {
    "documents": ("documents", ".0f"),
    "typed %": ("typedPercent", ".1f"),
    "slowest s": ("slowestSeconds", ".1f"),
    "after a kill s": ("afterKillSeconds", ".2f"),
    "parent MB grown": ("parentGrownMb", ".1f"),
    "loop p99 ms": ("loopP99Ms", ".1f"),
    "leases lost": ("leasesLost", ".0f"),
}


def measure_hostile(ours: DocumentDesk, most: int | None) -> list[dict[str, Any]]:
    """Feed the first so many hostile documents, or all, each with an honest one behind it."""
    worker = ours.worker(**CONTAINED).ready(60)
    ours.result(ours.add(ours.written("first.txt", b"So that what is loaded once is loaded."), "first"))
    with watched(worker) as watch:
        turns = feed(ours, hostile_documents()[:most])
    if unread := [turn.hostile.name for turn in turns if turn.honest.how != "read"]:
        raise AssertionError(f"the honest documents behind {unread} were not read")
    typed = sum(turn.ended.is_typed for turn in turns)
    lost = worker.metric("intelliflow_worker_leases_lost_total")
    return [
        {
            "contender": "ours",
            "documents": len(turns),
            "typedPercent": 100 * typed / len(turns),
            "slowestSeconds": max(turn.ended.seconds for turn in turns),
            "afterKillSeconds": max(turn.seconds_after_a_kill for turn in turns),
            "parentGrownMb": watch.grown / MEBIBYTE,
            "loopP99Ms": 1000 * watch.lag_p99,
            "leasesLost": lost + sum(turn.ended.stalled + turn.honest.stalled for turn in turns),
        }
    ]
