"""The nastiest documents that we know, and honest ones in between: one worker reads these and names those."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from document_desk import EXTRACTION, document_desk
from hostile_documents import KILLED, hostile_documents
from hostile_feed import CONTAINED, MEBIBYTE, feed, watched

if TYPE_CHECKING:
    from pathlib import Path

NASTIEST = (
    "twice-deflated.pdf",
    "fanned-out.pdf",
    "looped.pdf",
    "vast.png",
    "unfolding.docx",
    "shadow.docx",
    "entities.docx",
    "repeated.ods",
    "angles.html",
    "endless-quote.csv",
    "deep-mails.eml",
    "deep.rtf",
)
MOST_GROWN = 64 * MEBIBYTE


@pytest.mark.timeout(180)
def test_the_nastiest_documents_harm_nobody(redis_url: str, database_url: str, tmp_path: Path) -> None:
    nastiest = [document for document in hostile_documents() if document.name in NASTIEST]
    assert len(nastiest) == len(NASTIEST)
    with document_desk(redis_url, database_url, tmp_path) as desk:
        worker = desk.worker(**CONTAINED).ready(60)
        with watched(worker) as watch:
            turns = feed(desk, nastiest, within=120)
        ends = {turn.hostile.name: turn.ended.how for turn in turns}
        assert {name: how for name, how in ends.items() if how not in expected(name)} == {}
        assert ends["fanned-out.pdf"] in KILLED
        assert [turn.honest.how for turn in turns] == ["read"] * len(NASTIEST)
        assert {desk.text(f"honest {number}") for number in range(len(turns))} == {
            f"Clause {number}: the rent is due on day {number + 1}." for number in range(len(turns))
        }
        assert desk.rows("SELECT count(*) FROM document WHERE state = 'failed' AND problem IS NULL") == [(0,)]
        assert sum(turn.ended.stalled + turn.honest.stalled for turn in turns) == 0
        assert worker.metric("intelliflow_worker_leases_lost_total") == 0
        assert desk.client.llen(f"{EXTRACTION}:active") == 0
        # No folder of any document is left.
        assert list(tmp_path.glob("intelliflow-documents-*/worker-*/document-*")) == []
        assert watch.grown < MOST_GROWN


def expected(name: str) -> frozenset[str]:
    return next(document.ends for document in hostile_documents() if document.name == name)
