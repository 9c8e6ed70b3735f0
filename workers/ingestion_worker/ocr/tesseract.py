"""The child task `recognise`: a picture of a page, read by Tesseract."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ingestion_worker.ocr.adaptive import Bench, Orders, read_adaptively
from ingestion_worker.ocr.pictures import grey_picture
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from ingestion_worker.isolation.task import Desk

__all__ = ["recognise"]


def recognise(desk: Desk) -> dict[str, Any]:
    """Read a picture; the task `recognise`.

    Writes `page-<n>.json` (text, confidence, rotated, attempts), and `page-<n>.pdf` when `pdf` is ordered, and returns
    the former's name.
    """
    os.environ["OMP_THREAD_LIMIT"] = "1"  # Pages are read in parallel; threads within one take five times the CPU.
    page = f"page-{desk.order['page']}"
    found = _read(desk, page)
    (desk.folder / f"{page}.json").write_text(json.dumps(found), encoding="utf-8")
    desk.report(1, 1)
    return {"file": f"{page}.json"}


def _read(desk: Desk, page: str) -> dict[str, Any]:
    orders = Orders(**desk.order["tesseract"])
    bench = Bench(grey_picture(desk.folder / desk.order["image"]), desk.folder, page, orders)
    if bench.looks.blank and not orders.pdf:
        return {"text": "", "confidence": None, "rotated": 0, "attempts": []}
    read_adaptively(bench)
    best = bench.best
    if all(attempt.broken for attempt in bench.attempts):
        raise DocumentError(Problem.TIMEOUT, "the picture of the page took Tesseract too long")
    bench.keep_pdf()
    return {
        "text": best.reading.text,
        "confidence": best.reading.confidence,
        "rotated": best.way.turned,
        "attempts": [attempt.shown() for attempt in bench.attempts],
    }
