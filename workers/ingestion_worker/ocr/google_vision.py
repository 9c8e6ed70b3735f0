"""Google Cloud Vision: `images:annotate` with DOCUMENT_TEXT_DETECTION, a page a request."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from ingestion_worker.ocr import cloud
from ingestion_worker.ocr.cloud import CloudClient, Refusal, judged, mean_confidence
from ingestion_worker.ocr.engine import PictureLimits, PictureTooLarge, Recognised
from ingestion_worker.ocr.languages import hint
from ingestion_worker.ocr.left_files import read_left
from ingestion_worker.problem import DocumentError, Problem
from worker_runtime.egress import trusted_egress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ingestion_worker.ocr.cloud import Verdict
    from ingestion_worker.ocr.engine import Tasks
    from ingestion_worker.settings import IngestionSettings
    from worker_runtime.breaker import Breaker
    from worker_runtime.egress import EgressReply

__all__ = ["GoogleVisionEngine", "opened_google_vision"]

NAME = "google-vision"
# Of a request of 10 MB in all, in which a picture takes a third more than its file; https://cloud.google.com/vision/quotas
MOST_BYTES, MOST_PIXELS = 7_000_000, 75_000_000
# Without it every letter comes with its frame.
FIELDS = "responses(error,fullTextAnnotation(text,pages(blocks(paragraphs(words(confidence))))))"
# Reasons in a request's error.
KEY_REFUSED = {"API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_INVALID"}
TOO_LARGE = 413


class GoogleVisionEngine:
    """See `OcrEngine`."""

    name: ClassVar[str] = NAME

    def __init__(self, client: CloudClient, base_url: str, key: str, settings: IngestionSettings) -> None:
        self.at_once = settings.ocr_concurrency
        self.limits = PictureLimits(min(settings.ocr_max_pixels, MOST_PIXELS), bytes=MOST_BYTES)
        self._client = client
        self._url = f"{base_url.rstrip('/')}/v1/images:annotate?fields={FIELDS}"
        self._headers = {"X-Goog-Api-Key": key, "Content-Type": "application/json"}

    async def recognise(self, folder: Path, image: str, page: int, language: str | None) -> Recognised:
        """See `OcrEngine`."""
        del page
        order: dict[str, Any] = {
            "image": {"content": base64.b64encode(read_left(folder / image, MOST_BYTES)).decode()},
            "features": [{"type": "DOCUMENT_TEXT_DETECTION"}],
        }
        if hints := hint(language):
            order["imageContext"] = {"languageHints": list(hints)}
        body = json.dumps({"requests": [order]}).encode()
        return read_annotation(await self._client.ask(self._url, body, self._headers, verdict))


def verdict(reply: EgressReply, told: dict[str, Any]) -> Verdict:
    """Read an answer: `{"responses": [{"fullTextAnnotation": ...}]}`, or an error there or in place of it."""
    if reply.status != cloud.OK:
        return refused(reply, told)
    responses = told.get("responses")
    if not (isinstance(responses, list) and len(responses) == 1 and isinstance(responses[0], dict)):
        return cloud.broken(f"{NAME} answered with something unreadable")
    error = responses[0].get("error")
    if isinstance(error, dict) and error.get("code"):
        return page_refused(error)
    return responses[0]


def refused(reply: EgressReply, told: dict[str, Any]) -> Refusal:
    """Judge a request that was refused. A key that is wrong is an invalid argument to Google, like any."""
    error = told.get("error")
    error = error if isinstance(error, dict) else {}
    status, words = str(error.get("status", ""))[:64], str(error.get("message", ""))
    reasons = {str(detail.get("reason")) for detail in error.get("details") or [] if isinstance(detail, dict)}
    if reasons & KEY_REFUSED or "API key" in words:
        return cloud.misconfigured(f"{NAME} answered {reply.status} {status}: see GOOGLE_VISION_API_KEY")
    if reply.status == TOO_LARGE or "payload size" in words:
        return Refusal(PictureTooLarge())
    return judged(NAME, reply, status)


def page_refused(error: dict[str, Any]) -> Refusal:
    """Judge the refusal of one picture."""
    code, words = error["code"], str(error.get("message", "")).lower()
    sentence = f"{NAME} refused the page with code {code}" if isinstance(code, int) else f"{NAME} refused the page"
    match code:
        case 3 if "too large" in words or "exceed" in words:
            return Refusal(PictureTooLarge())
        case 3 | 9 | 11 | 12:
            return Refusal(DocumentError(Problem.UNSUPPORTED, sentence))
        case 7 | 16:
            return cloud.misconfigured(sentence)
        case 8:
            return cloud.throttled(sentence)
        case _:
            return cloud.broken(sentence)


def read_annotation(response: dict[str, Any]) -> Recognised:
    """Read the text, which is in reading order, and the words' confidences. A page without text has neither."""
    annotation = response.get("fullTextAnnotation") or {}
    try:
        words = [
            float(word["confidence"])
            for page in annotation.get("pages", ())
            for block in page.get("blocks", ())
            for paragraph in block.get("paragraphs", ())
            for word in paragraph.get("words", ())
            if "confidence" in word
        ]
        return Recognised(annotation.get("text", "").strip(), mean_confidence(words))
    except (AttributeError, TypeError, ValueError) as error:
        raise cloud.broken(f"{NAME} answered with something unreadable").error from error


@asynccontextmanager
async def opened_google_vision(
    settings: IngestionSettings, tasks: Tasks, breaker: Callable[[str, float], Breaker]
) -> AsyncIterator[GoogleVisionEngine]:
    """Open it; a connection is made when the first page needs one, and closed on leaving."""
    del tasks
    key = settings.google_vision_api_key.get_secret_value() if settings.google_vision_api_key else ""
    async with trusted_egress(kept_bytes=cloud.ANSWER_BYTES) as http:
        client = CloudClient(NAME, http, breaker(NAME, cloud.CALL_SECONDS))
        yield GoogleVisionEngine(client, settings.google_vision_base_url, key, settings)
