"""AWS Textract: `DetectDocumentText`, a page a request."""

from __future__ import annotations

import base64
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from ingestion_worker.ocr import cloud
from ingestion_worker.ocr.cloud import CloudClient, Refusal, judged, mean_confidence
from ingestion_worker.ocr.engine import PictureLimits, PictureTooLarge, Recognised
from ingestion_worker.ocr.left_files import read_left
from ingestion_worker.ocr.reading_order import Line, text_in_reading_order
from ingestion_worker.ocr.sigv4 import AwsKey, signed_headers
from ingestion_worker.problem import DocumentError, Problem
from worker_runtime.egress import trusted_egress
from worker_runtime.egress.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ingestion_worker.ocr.cloud import Verdict
    from ingestion_worker.ocr.engine import Tasks
    from ingestion_worker.settings import IngestionSettings
    from worker_runtime.breaker import Breaker
    from worker_runtime.egress import EgressReply

__all__ = ["AwsTextractEngine", "opened_aws_textract"]

NAME = "aws-textract"
SERVICE = "textract"
# https://docs.aws.amazon.com/textract/latest/dg/limits-document.html: 10 MB, of which base64 leaves three quarters.
MOST_BYTES, LONGEST_SIDE = 7_000_000, 10_000
HEADERS = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Textract.DetectDocumentText"}
PER_CENT = 100
# https://docs.aws.amazon.com/textract/latest/APIReference/API_DetectDocumentText.html, "Errors", and the common ones.
KEY_REFUSED = frozenset({
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature",
    "IncompleteSignatureException", "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired", "SignatureDoesNotMatch",
    "SubscriptionRequiredException", "UnknownOperationException", "UnrecognizedClientException",
})  # fmt: skip
THROTTLES = frozenset({
    "LimitExceededException", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "Throttling",
    "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip
PAGE_REFUSED = frozenset({"BadDocumentException", "InvalidParameterException", "UnsupportedDocumentException"})
TOO_LARGE = "DocumentTooLargeException"


class AwsTextractEngine:
    """See `OcrEngine`. It finds out the language by itself."""

    name: ClassVar[str] = NAME

    def __init__(self, client: CloudClient, url: str, key: AwsKey, settings: IngestionSettings) -> None:
        self.at_once = settings.ocr_concurrency
        self.limits = PictureLimits(settings.ocr_max_pixels, LONGEST_SIDE, MOST_BYTES)
        self._client = client
        self._url = url.rstrip("/") + "/"
        self._key = key

    async def recognise(self, folder: Path, image: str, page: int, language: str | None) -> Recognised:
        """See `OcrEngine`."""
        del page, language
        picture = base64.b64encode(read_left(folder / image, MOST_BYTES)).decode()
        body = json.dumps({"Document": {"Bytes": picture}}).encode()
        headers = signed_headers(self._key, "POST", self._url, HEADERS, body, time.time())
        return read_blocks(await self._client.ask(self._url, body, headers, verdict))


def verdict(reply: EgressReply, told: dict[str, Any]) -> Verdict:
    """Read an answer: `{"Blocks": [...]}`, or an error named in a header or in `__type`."""
    if reply.status == cloud.OK:
        return told if isinstance(told.get("Blocks"), list) else cloud.broken(f"{NAME} answered without Blocks")
    return refused(reply, error_code(reply, told))


def refused(reply: EgressReply, code: str) -> Refusal:
    """Judge an error by its name; one that nobody knows by the HTTP status."""
    sentence = f"{NAME} answered {reply.status} {code}".rstrip()
    if code in KEY_REFUSED:
        return cloud.misconfigured(f"{sentence}: see AWS_ACCESS_KEY_ID, its permissions, and this machine's clock")
    if code in THROTTLES:
        return cloud.throttled(sentence, judged_wait(reply))
    if code in PAGE_REFUSED:
        return Refusal(DocumentError(Problem.UNSUPPORTED, f"{NAME} refused the page: {code}"))
    if code == TOO_LARGE:
        return Refusal(PictureTooLarge())
    return judged(NAME, reply, code)


def error_code(reply: EgressReply, told: dict[str, Any]) -> str:
    """Return the error's name: `com.amazonaws.textract#BadDocumentException:http://...` is BadDocumentException."""
    whole = str(told.get("__type") or reply.headers.get("x-amzn-ErrorType") or "")
    return whole.partition(":")[0].rpartition("#")[2][:64]


def judged_wait(reply: EgressReply) -> float | None:
    """Return for how many seconds it wants to be left alone, if it says so."""
    return retry_after(reply.headers.get("Retry-After"), time.time())


def read_blocks(told: dict[str, Any]) -> Recognised:
    """Read the lines, which come from top to bottom whatever the columns, and the words' confidences."""
    try:
        lines = [_line(block) for block in told["Blocks"] if block["BlockType"] == "LINE"]
        words = [float(block["Confidence"]) / PER_CENT for block in told["Blocks"] if block["BlockType"] == "WORD"]
        return Recognised(text_in_reading_order(lines), mean_confidence(words))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise cloud.broken(f"{NAME} answered with something unreadable").error from error


def _line(block: dict[str, Any]) -> Line:
    frame = block["Geometry"]["BoundingBox"]
    left, top, width, height = (float(frame[side]) for side in ("Left", "Top", "Width", "Height"))
    return Line(str(block["Text"]), left, top, width, height)


@asynccontextmanager
async def opened_aws_textract(
    settings: IngestionSettings, tasks: Tasks, breaker: Callable[[str, float], Breaker]
) -> AsyncIterator[AwsTextractEngine]:
    """Open it; a connection is made when the first page needs one, and closed on leaving."""
    del tasks
    secret, token = settings.aws_secret_access_key, settings.aws_session_token
    key = AwsKey(
        settings.aws_access_key_id or "",
        secret.get_secret_value() if secret else "",
        settings.aws_region or "",
        SERVICE,
        token.get_secret_value() if token else None,
    )
    async with trusted_egress(kept_bytes=cloud.ANSWER_BYTES) as http:
        client = CloudClient(NAME, http, breaker(NAME, cloud.CALL_SECONDS))
        yield AwsTextractEngine(client, settings.textract_url, key, settings)
