"""Somebody's server that gets our webhooks, on the loopback interface, and checks each signature for itself."""

from __future__ import annotations

import base64
import hmac
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
TOLERANCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """What came, when (seconds since the epoch), and whether its signature was right."""

    webhook_id: str
    body: bytes
    genuine: bool
    received_at: float


class WebhookReceiver:
    """Answers 204 to what is signed with `secret` (`whsec_...`) and 401 to all else, in threads of its own."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._received: list[ReceivedWebhook] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where webhooks are to be sent."""
        return f"http://{HOST}:{self._server.server_address[1]}/hook"

    @property
    def received(self) -> list[ReceivedWebhook]:
        """Everything that came so far."""
        with self._changed:
            return list(self._received)

    def wait_until(self, enough: Callable[[list[ReceivedWebhook]], bool], *, seconds: float) -> bool:
        """Block until `enough` says yes; false when `seconds` passed before."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(self._received), seconds)

    def take(self, webhook_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
        """Keep a call; tell whether it is genuine."""
        genuine = timestamp.isdigit() and abs(time.time() - int(timestamp)) <= TOLERANCE_SECONDS
        signed = f"{webhook_id}.{timestamp}.".encode() + body
        ours = "v1," + base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()
        genuine = genuine and any(hmac.compare_digest(ours, theirs) for theirs in signatures.split(" "))
        with self._changed:
            self._received.append(ReceivedWebhook(webhook_id, body, genuine, time.time()))
            self._changed.notify_all()
        return genuine


def _handler(receiver: WebhookReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            webhook_id, timestamp, signatures = (
                self.headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature")
            )
            self.send_response(204 if receiver.take(webhook_id, timestamp, signatures, body) else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing on standard error."""

    return Handler
