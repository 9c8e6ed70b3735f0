"""Holds an ingestion-worker still in the midst of a stage, so that a test can break what it stands on."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Event, Thread
from typing import TYPE_CHECKING

import psycopg
from PIL import Image, ImageDraw, ImageFont

from ingestion_worker.isolation.linux import children_of
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from document_desk import DocumentDesk

WORDS = ("hinges", "frames", "gutters", "ladders", "shutters", "railings", "shingles", "trusses", "rafters", "gates")
WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name = 'ingestion-worker' AND wait_event_type = 'Lock' AND datname = current_database()
"""


def prose(about: str, paragraphs: int) -> bytes:
    """A text file whose every paragraph is unlike any other."""
    lines = [
        f"Paragraph {n} of the agreement about {about} says that {n * 7} {WORDS[n % 10]} are delivered on day {n}."
        for n in range(1, paragraphs + 1)
    ]
    return "\n\n".join(lines).encode()


def scanned(pages: int, about: str = "house") -> bytes:
    """A PDF of nothing but pictures, with a word of its own on each page."""
    pictures = [picture(f"The {about} has {WORDS[n]}") for n in range(pages)]
    made = BytesIO()
    pictures[0].save(made, "PDF", save_all=True, append_images=pictures[1:], resolution=100)
    return made.getvalue()


def picture(text: str) -> Image.Image:
    page = Image.new("L", (827, 600), 255)
    ImageDraw.Draw(page).text((80, 200), text, font=ImageFont.load_default(40), fill=0)
    return page


def fork_server_of(worker: Process) -> int:
    wait_for(lambda: children_of(worker.popen.pid), 20, "the fork server")
    return children_of(worker.popen.pid)[0]


def children_reading(worker: Process) -> list[int]:
    """The processes that are at documents of this worker."""
    return [child for server in children_of(worker.popen.pid) for child in children_of(server)]


@contextmanager
def reading_held(worker: Process) -> Iterator[None]:
    """Freeze the next child that reads, for the length of the block, which begins when it is frozen."""
    wait_for(lambda: children_reading(worker), 20, "a child that reads", every=0.001)
    held = children_reading(worker)
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in held:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def writing_held(desk: DocumentDesk, table: str) -> Iterator[None]:
    """Lock a table for the length of the block, or until the server is gone."""
    assert desk.database_url
    connection = psycopg.connect(desk.database_url)
    connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
    try:
        yield
    finally:
        connection.close()


def until_blocked(desk: DocumentDesk) -> None:
    """Wait until a worker's statement waits for a lock."""
    wait_for(lambda: desk.rows(WAITING) != [(0,)], 30, f"waiting for the lock: {desk.tail()}", every=0.01)


@contextmanager
def half_a_document(whole: bytes) -> Iterator[tuple[str, Event]]:
    """Serve a document of which the first caller gets only the beginning; set: somebody has that."""
    half_way, over = Event(), Event()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[:100])
            self.wfile.flush()
            if not half_way.is_set():
                half_way.set()
                over.wait(30)
                return
            self.wfile.write(whole[100:])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/a.txt", half_way
        finally:
            over.set()
            server.shutdown()
            thread.join()
