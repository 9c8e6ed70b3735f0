"""Google Cloud Vision and AWS Textract on a loopback port: their wire formats, and a real Tesseract behind them.

    async with CloudOcr() as cloud:
        cloud.will(Answer(429, {}, {"Retry-After": "7"}))    # the next request; then it reads pictures again

It refuses a wrong key as each of them does, and checks signatures with botocore's code, not with ours.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from PIL import Image, UnidentifiedImageError

from ocr_harness import TESSERACT

if TYPE_CHECKING:
    from collections.abc import Mapping

GOOGLE_KEY = "right-google-key"
AWS_KEY_ID, AWS_SECRET, AWS_TOKEN, REGION = "AKIDEXAMPLE", "right/aws+secret", "right-token", "eu-central-1"
MOST_SKEW_SECONDS = 300
JSON_10, JSON_11 = "application/json; charset=UTF-8", "application/x-amz-json-1.1"


@dataclass(frozen=True)
class Answer:
    """What is answered instead of a reading; `body` may be bytes that are no JSON."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """A word or a line as Tesseract found it: its text, confidence from 0 to 100, and frame in pixels."""

    text: str
    confidence: float
    left: int
    top: int
    width: int
    height: int


class CloudOcr:
    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.pictures: list[bytes] = []
        self._script: deque[Answer] = deque()

    def will(self, *answers: Answer) -> None:
        self._script.extend(answers)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64_000_000)
        app.router.add_post("/v1/images:annotate", self._google)
        app.router.add_post("/", self._textract)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert self._runner.addresses
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _google(self, request: web.Request) -> web.Response:
        asked = await self._noted("google", request)
        if request.headers.get("X-Goog-Api-Key") != GOOGLE_KEY:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            error = {"code": 400, "message": "API key not valid. Please pass a valid API key.", "details": details}
            return answered(400, {"error": error | {"status": "INVALID_ARGUMENT"}}, JSON_10)
        if self._script:
            return said(self._script.popleft(), JSON_10)
        (order,) = asked["requests"]
        assert order["features"] == [{"type": "DOCUMENT_TEXT_DETECTION"}]
        return answered(200, {"responses": [await self._annotation(order["image"]["content"])]}, JSON_10)

    async def _annotation(self, content: str) -> dict[str, Any]:
        picture = self._decoded(content)
        if picture is None:
            return {"error": {"code": 3, "message": "Bad image data."}}
        lines = await lines_in(picture)
        if not lines:
            return {}
        words = [
            {"confidence": word.confidence / 100, "symbols": [{"text": letter} for letter in word.text]}
            for line in lines
            for word in line
        ]
        text = "".join(" ".join(word.text for word in line) + "\n" for line in lines)
        pages = [{"confidence": 0.9, "blocks": [{"paragraphs": [{"words": words}]}]}]
        return {"textAnnotations": [{"description": text}], "fullTextAnnotation": {"text": text, "pages": pages}}

    async def _textract(self, request: web.Request) -> web.Response:
        body = await request.read()
        if (problem := signature_problem(request, body)) is not None:
            return answered(400, {"__type": problem, "message": "no"}, JSON_11)
        asked = await self._noted("textract", request)
        if self._script:
            return said(self._script.popleft(), JSON_11)
        assert request.headers["X-Amz-Target"] == "Textract.DetectDocumentText"
        picture = self._decoded(asked["Document"]["Bytes"])
        if picture is None:
            return answered(400, {"__type": "UnsupportedDocumentException", "message": "no"}, JSON_11)
        blocks = blocks_of(await lines_in(picture), size_of(picture))
        return answered(200, {"DocumentMetadata": {"Pages": 1}, "Blocks": blocks}, JSON_11)

    async def _noted(self, service: str, request: web.Request) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads(await request.read())
        self.requests.append((service, asked))
        return asked

    def _decoded(self, content: str) -> bytes | None:
        try:
            picture = base64.b64decode(content, validate=True)
            size_of(picture)
        except (binascii.Error, UnidentifiedImageError):
            return None
        self.pictures.append(picture)
        return picture


def signature_problem(request: web.Request, body: bytes) -> str | None:
    """Name what is wrong with a signature, as AWS does; botocore works out what it should be."""
    parts = dict(part.split("=", 1) for part in request.headers["Authorization"].partition(" ")[2].split(", "))
    key_id, day, region, service, _ = parts["Credential"].split("/")
    if key_id != AWS_KEY_ID:
        return "com.amazon.coral.service#UnrecognizedClientException"
    moment = request.headers["X-Amz-Date"]
    age = datetime.now(UTC) - datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs(age.total_seconds()) > MOST_SKEW_SECONDS or not moment.startswith(day):
        return "com.amazon.coral.service#InvalidSignatureException"
    signed = {name: request.headers[name] for name in parts["SignedHeaders"].split(";")}
    copy = AWSRequest("POST", f"http://{request.host}{request.path}", headers=signed, data=body)
    copy.context["timestamp"] = moment
    auth = SigV4Auth(Credentials(AWS_KEY_ID, AWS_SECRET, request.headers.get("X-Amz-Security-Token")), service, region)
    expected = auth.signature(auth.string_to_sign(copy, auth.canonical_request(copy)), copy)
    right = (expected, "textract", REGION) == (parts["Signature"], service, region)
    return None if right else "com.amazon.coral.service#InvalidSignatureException"


async def lines_in(picture: bytes) -> list[list[Box]]:
    """Read a picture with Tesseract, by its own command line."""
    command = [*TESSERACT, "stdin", "stdout", "--psm", "3", "-l", "eng", "tsv"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"OMP_THREAD_LIMIT": "1"},
    )
    table, _ = await process.communicate(picture)
    lines: dict[tuple[str, ...], list[Box]] = {}
    for row in table.decode().splitlines()[1:]:
        level, *place, _word, left, top, width, height, confidence, text = row.split("\t")
        if level == "5" and text.strip():
            box = Box(text, float(confidence), int(left), int(top), int(width), int(height))
            lines.setdefault(tuple(place), []).append(box)
    return list(lines.values())


def blocks_of(lines: list[list[Box]], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Write down a page, its lines and their words, as Textract does: downwards, whatever the columns."""
    downwards = sorted((around(words) for words in lines), key=lambda box: box.top)
    found = [block("LINE", line, size) for line in downwards]
    found += [block("WORD", word, size) for words in lines for word in words]
    return [{"BlockType": "PAGE", "Id": "page"}, *found]


def around(words: list[Box]) -> Box:
    left, top = min(word.left for word in words), min(word.top for word in words)
    right, bottom = max(word.left + word.width for word in words), max(word.top + word.height for word in words)
    return Box(" ".join(word.text for word in words), words[0].confidence, left, top, right - left, bottom - top)


def block(kind: str, box: Box, size: tuple[int, int]) -> dict[str, Any]:
    wide, high = size
    frame = {"Left": box.left / wide, "Top": box.top / high, "Width": box.width / wide, "Height": box.height / high}
    return {"BlockType": kind, "Text": box.text, "Confidence": box.confidence, "Geometry": {"BoundingBox": frame}}


def size_of(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        return image.size


def said(answer: Answer, content_type: str) -> web.Response:
    return answered(answer.status, answer.body, content_type, answer.headers)


def answered(status: int, body: Any, content_type: str, headers: Mapping[str, str] | None = None) -> web.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.Response(status=status, body=raw, headers={"Content-Type": content_type, **(headers or {})})
