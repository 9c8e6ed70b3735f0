"""A real HTTP receiver that honours `Idempotency-Key`: it has an effect once, however often it is asked.

A request says in its body of which execution and step it is, and how it is to go: `fails` so many times before it
succeeds, -1 for ever; `refused` for good. Every request is told as `asked`, with the status as its note, before it is
answered; an effect as `effect`. The key of both is their `run`.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from chaos.history import Pen

# Between the effect and its answer: in it a kill makes the same request come again.
LONGEST_ANSWER_SECONDS = 0.03
OK, REFUSED, FAILED = 200, 422, 500


class Receiver(ThreadingHTTPServer):
    """Listens on a loopback address."""

    daemon_threads = True

    def __init__(self, pen: Pen, chance: Random) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pen = pen
        self.chance = chance
        self.asked: Counter[str] = Counter()
        self.effects: set[str] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}/effects"

    def take(self, key: str, body: dict[str, Any]) -> int:
        """Have the effect, unless it failed or has been had; return the status."""
        who = {"event": body["execution"], "handler": body["step"], "run": key}
        with self._lock:
            self.asked[key] += 1
            status = judged(body, self.asked[key])
            self.pen.tell("asked", note=str(status), **who)
            if status == OK and key not in self.effects:
                self.effects.add(key)
                self.pen.tell("effect", **who)
            wait = self.chance.uniform(0, LONGEST_ANSWER_SECONDS)
        time.sleep(wait)
        return status

    def handle_error(self, *_: object) -> None:
        """Be silent: whoever asked has been killed meanwhile."""


class Handler(BaseHTTPRequestHandler):
    """See `BaseHTTPRequestHandler`."""

    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        """Answer one request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.take(self.headers["Idempotency-Key"], body)
        answer = json.dumps({"step": body["step"]}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Be silent: the history has it."""


def judged(body: dict[str, Any], number: int) -> int:
    """Return how the request goes that is the number-th with its key."""
    if body.get("refused"):
        return REFUSED
    fails = body.get("fails") or 0
    return FAILED if fails < 0 or number <= fails else OK


@contextmanager
def receiver(pen: Pen, chance: Random) -> Iterator[Receiver]:
    """Run one in a thread."""
    with Receiver(pen, chance) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
