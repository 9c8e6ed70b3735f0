"""Our ingestion-worker beside the libraries that a team would call in its own process.

Everything is on that production has: fetching, a process for each document, cutting, PostgreSQL, progress, metrics.
docs/explanation/performance.md says what columns mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import structlog

import scans
from benchmarks import ingestion_hostile
from benchmarks.tables import table
from document_desk import EMBEDDING, EXTRACTION, OCR, DocumentDesk, document_desk
from embedded_stack import postgres_server, redis_server
from ingestion_worker.embeddings.local import encoded, loaded
from ingestion_worker.ocr.installed import installed_tesseract
from ingestion_worker.settings import IngestionSettings
from ingestion_worker.store.vectors import VectorStore
from worker_ops.migrations import migrate
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.settings.worker import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
READERS = ("pypdfium2", "pypdf", "pdftotext", "kreuzberg")
TEXT = (
    "the a of to and in that is was for on with as by at from lease tenant landlord rent deposit notice repair heating"
    " water balcony garden kitchen window written signed month quarter year account interest payment agreement party"
    " clause section property building insurance damage inspection utilities electricity contractor invoice reminder"
)
WORDS = TEXT.split()
DOCUMENT_OF_CHUNKS = """
WITH document AS (
    INSERT INTO document (tenant_id, document_id, claim, source, state, chunks)
    VALUES ('t-1', 'd-1', 'c', 's', 'read', $1::int)
)
INSERT INTO document_chunk (tenant_id, document_id, number, text, tokens, first_page, last_page)
SELECT 't-1', 'd-1', number, 'piece ' || number, 2, 1, 1 FROM generate_series(1, $1::int) AS number
"""
LOOKS = 50
LINES, WORDS_A_LINE = 45, 11
SPOILT: dict[str, Callable[[Image.Image], Image.Image]] = {
    "clean": lambda image: image,
    "skewed": scans.skewed,
    "noisy": scans.noisy,
    "shaded": scans.shaded,
    "on its side": lambda image: image.rotate(90, expand=True),
}
COLUMNS = {
    "text": {
        "pages/CPU s": ("pagesPerCpuSecond", ".0f"),
        "pages/s": ("pagesPerSecond", ".0f"),
    },
    "ocr": {
        "pages/CPU s": ("pagesPerCpuSecond", ".2f"),
        **{f"CER {name}": (f"cer {name}", ".3f") for name in SPOILT},
    },
    "embeddings": {
        "tokens/CPU s": ("tokensPerCpuSecond", ".0f"),
        "tokens/s": ("tokensPerSecond", ".0f"),
        "of raw %": ("share", ".0%"),
    },
    "vectors": {
        "upserts/s": ("upsertsPerSecond", ".0f"),
        "search ms": ("searchMs", ".1f"),
    },
    "hostile": ingestion_hostile.COLUMNS,
}
NOTES = {
    "ocr": "tesseract is stopped at a letter that takes it longer than {seconds:g} s, which counts as nan",
    "hostile": "one document at a time, each in 168 MiB and 10 s; an honest one waits behind each",
}


def main() -> None:
    # What producers log would stand between the tables.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    arguments = parsed()
    measured = {part: PARTS[part](arguments) for part in arguments.parts}
    if arguments.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        note = NOTES.get(part, "").format(seconds=arguments.patience)
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS[part])}{note}\n\n")


def measure_text(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Read so many PDFs of so many pages each; of ours everything up to the commit is counted."""
    pages = arguments.documents * arguments.pages
    with desk() as ours:
        names = [f"{number}.pdf" for number in range(arguments.documents)]
        for number, name in enumerate(names):
            ours.written(name, paper(arguments.pages, number))
        rows = [library(reader, [ours.store / name for name in names], pages) for reader in READERS if is_there(reader)]
        worker = ours.worker(QUEUE_CONCURRENCY="2").ready(60)
        ours.result(ours.add(ours.written("first.pdf", paper(1, 99)), "first"))
        used, began = tree_cpu(worker.popen.pid), time.monotonic()
        jobs = [ours.add(name, name) for name in names]
        done = [ours.result(job, within=300) for job in jobs]
        seconds = time.monotonic() - began
        if sum(one["pages"] for one in done) != pages:
            raise AssertionError(f"{done} for {pages} pages")
        cpu = tree_cpu(worker.popen.pid) - used
        rows.append(row("ours, in all", pages, seconds, cpu))
    return rows


def library(reader: str, paths: list[Path], pages: int) -> dict[str, Any]:
    """Let one library read all files in a process of its own."""
    command = [sys.executable, str(HERE / "ingestion_reader.py"), reader, *map(str, paths)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return row(reader, pages, told["seconds"], told["cpu"])


def is_there(reader: str) -> bool:
    return reader != "pdftotext" or shutil.which("pdftotext") is not None


def measure_ocr(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Read pictures of a letter at 300 dpi, clean and spoilt, by Tesseract as it comes and by ours up to the commit."""
    letters = {name: SPOILT[name](scans.picture(scans.ENGLISH)) for name in arguments.letters}
    pages = len(letters) * arguments.scans
    with desk() as ours:
        worker = ours.worker(ENABLE_OCR="true", QUEUE_CONCURRENCY="2").ready(60)
        for name, letter in letters.items():
            for number in range(arguments.scans):
                letter.save(ours.store / f"{name} {number}.pdf", "PDF", resolution=300, quality=92)
        used, began = tree_cpu(worker.popen.pid), time.monotonic()
        for path in sorted(ours.store.glob("*.pdf")):
            ours.add(path.name, path.stem)
        ours.drained(EXTRACTION, OCR, within=600)
        seconds, cpu = time.monotonic() - began, tree_cpu(worker.popen.pid) - used
        errors = {f"cer {name}": scans.character_error_rate(scans.ENGLISH, ours.text(f"{name} 0")) for name in letters}
        errors |= dict.fromkeys({f"cer {name}" for name in SPOILT} - errors.keys(), math.nan)
        return [
            bare_tesseract(letters, ours.folder, arguments.patience),
            row("ours, in all", pages, seconds, cpu, **errors),
        ]


def bare_tesseract(letters: dict[str, Image.Image], folder: Path, patience: float) -> dict[str, Any]:
    """Let Tesseract read each letter once, on one thread and as it is by default: noise can take it minutes."""
    tesseract = installed_tesseract(load(IngestionSettings))
    environment = {"OMP_THREAD_LIMIT": "1", "TESSDATA_PREFIX": str(tesseract.data)}
    errors = {f"cer {name}": math.nan for name in SPOILT}
    began, before = time.monotonic(), os.times()
    for name, letter in letters.items():
        letter.save(folder / "letter.png", dpi=(300, 300))
        command: list[str | Path] = [tesseract.program, "letter.png", "-"]
        with suppress(subprocess.TimeoutExpired):
            text = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, check=True, timeout=patience
            )
            errors[f"cer {name}"] = scans.character_error_rate(scans.ENGLISH, text.stdout.decode())
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return row("tesseract", len(letters), time.monotonic() - began, cpu, **errors)


def measure_embeddings(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Embed the pieces of some documents by the bare model, and by a worker up to the commit."""
    with desk() as ours:
        reader = ours.worker().ready(60)
        for number in range(arguments.documents):
            ours.add(ours.written(f"{number}.pdf", paper(arguments.embedded_pages, number)), f"d-{number}")
        ours.drained(EXTRACTION)
        reader.stop()
        pieces = [(text, tokens) for text, tokens in ours.rows("SELECT text, tokens FROM document_chunk")]
        tokens = sum(count for _, count in pieces)
        raw = asyncio.run(bare_model([text for text, _ in pieces]))
        worker = ours.worker(ENABLE_TEXT_EXTRACTION="false", ENABLE_EMBEDDINGS="true").ready(60)
        used, began = tree_cpu(worker.popen.pid), time.monotonic()
        for number in range(arguments.documents):
            ours.add("", f"d-{number}", EMBEDDING)
        ours.drained(EMBEDDING, within=600)
        mine = (time.monotonic() - began, tree_cpu(worker.popen.pid) - used)
        if ours.rows("SELECT count(*) FROM document_vector") != [(len(pieces),)]:
            raise AssertionError("not every piece has a vector")
    return [
        {
            "contender": name,
            "tokensPerCpuSecond": tokens / cpu,
            "tokensPerSecond": tokens / seconds,
            "share": raw[1] / cpu,
        }
        for name, (seconds, cpu) in (("the model alone", raw), ("ours, in all", mine))
    ]


async def bare_model(texts: list[str]) -> tuple[float, float]:
    """Return the seconds and CPU seconds that the model takes for texts, one after the other and one at a time."""
    session, ids = loaded(), encoded(texts)

    def compute() -> None:
        for one in ids:
            tokens = np.array([one], dtype=np.int64)
            given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": tokens * 0}
            session.run(["last_hidden_state"], given)

    began, before = time.monotonic(), time.process_time()
    await asyncio.to_thread(compute)
    return time.monotonic() - began, time.process_time() - before


def measure_vectors(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Keep random vectors in the index, and look for the nearest."""
    with desk() as ours:
        return [asyncio.run(kept_vectors(str(ours.database_url), arguments.vectors))]


async def kept_vectors(database_url: str, count: int) -> dict[str, Any]:
    chosen = np.random.default_rng(1)
    async with Database(database_url, settings=BY_INDEX) as database:
        async with database.connected() as connection:
            await connection.execute(DOCUMENT_OF_CHUNKS, count)
        store, began = VectorStore(database), time.monotonic()
        for after in range(0, count, 64):
            chunks = await store.chunks("t-1", "d-1", after, 64)
            vectors = chosen.normal(size=(len(chunks), 384))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            await store.add("t-1", "d-1", "bench", dict(zip(chunks, vectors.tolist(), strict=True)))
        seconds = time.monotonic() - began
        asked = chosen.normal(size=384)
        looked = time.monotonic()
        for _ in range(LOOKS):
            await store.search("t-1", "bench", (asked / np.linalg.norm(asked)).tolist(), 10)
        took = (time.monotonic() - looked) / LOOKS * 1000
    return {"contender": f"{count} vectors", "upsertsPerSecond": count / seconds, "searchMs": took}


def row(contender: str, pages: int, seconds: float, cpu: float, **more: float) -> dict[str, Any]:
    return {"contender": contender, "pagesPerSecond": pages / seconds, "pagesPerCpuSecond": pages / cpu, **more}


def paper(pages: int, seed: int) -> bytes:
    """Return a PDF of so many pages with some 3,000 characters each."""
    chosen = random.Random(seed)
    return scans.pdf(*["\n".join(line(chosen) for _ in range(LINES)) for _ in range(pages)], points=9)


def line(chosen: random.Random) -> str:
    return " ".join(chosen.choices(WORDS, k=WORDS_A_LINE)) + "."


def tree_cpu(pid: int) -> float:
    """Return the CPU seconds of a process, of those it started, and of all that they have waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / TICKS + sum(map(tree_cpu, children_of(pid)))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]


@contextmanager
def desk() -> Iterator[DocumentDesk]:
    """Run servers in the block; what is written there is on a disk."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        redis_url = opened.enter_context(redis_server(folder / "redis", durable=False)).url
        database_url = opened.enter_context(postgres_server(folder / "postgres")).url
        migrate(database_url, lambda _: None)
        yield opened.enter_context(document_desk(redis_url, database_url, folder))


def measure_hostile(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    with desk() as ours:
        return ingestion_hostile.measure_hostile(ours, arguments.hostile)


PARTS = {
    "text": measure_text,
    "ocr": measure_ocr,
    "embeddings": measure_embeddings,
    "vectors": measure_vectors,
    "hostile": measure_hostile,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=COLUMNS, default=tuple(COLUMNS), help="what to measure (default: everything)")
    add("--documents", type=int, default=20, help="PDFs to read (default 20)")
    add("--pages", type=int, default=150, help="pages of each (default 150)")
    add("--embedded-pages", type=int, default=5, help="pages of each whose pieces are embedded (default 5)")
    add("--vectors", type=int, default=5_000, help="vectors to keep (default 5000)")
    add("--scans", type=int, default=3, help="scans of each kind (default 3)")
    add("--letters", nargs="+", choices=SPOILT, default=tuple(SPOILT), help="kinds of scans (default: every)")
    add("--patience", type=float, default=60.0, help="seconds that bare Tesseract has for a letter (default 60)")
    add("--hostile", type=int, help="hostile documents to feed (default: all)")
    add("--json", action="store_true", help="one machine-readable line instead of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
