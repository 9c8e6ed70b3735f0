"""Both clouds' engines against a server that speaks as they do, checks keys as they do, and really reads."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from cloud_ocr_server import AWS_KEY_ID, AWS_SECRET, AWS_TOKEN, GOOGLE_KEY, REGION, Answer, CloudOcr
from embedded_stack.ports import free_port
from ingestion_worker.document import Page
from ingestion_worker.ocr.engine import EngineFailed, PictureTooLarge, opened_engine
from ingestion_worker.ocr.recognition import PageOrder, recognise_pages
from ingestion_worker.problem import DocumentError
from ocr_harness import InThreads, ocr_settings
from scans import ENGLISH, character_error_rate, pdf, picture
from worker_runtime.breaker import Breakers
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import Defer, Hold, Retry
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ingestion_worker.ocr.engine import OcrEngine
    from worker_runtime.breaker import Breaker
    from worker_runtime.outcome import Outcome

GOOGLE, TEXTRACT = "google-vision", "aws-textract"
BOTH = pytest.mark.parametrize("name", [GOOGLE, TEXTRACT])


class Desk:
    """An engine, its circuit, and a page to show it."""

    def __init__(self, engine: OcrEngine, breaker: Breaker, folder: Path) -> None:
        self.engine = engine
        self.breaker = breaker
        self.folder = folder

    async def read(self, language: str | None = None) -> Any:
        return await self.engine.recognise(self.folder, "page-1.jpg", 1, language)

    async def outcome(self) -> Outcome:
        with pytest.raises(EngineFailed) as failed:
            await self.read()
        return failed.value.outcome

    @property
    def circuit(self) -> str:
        return self.breaker.reading.position.name


@asynccontextmanager
async def desk(name: str, url: str, folder: Path, redis_url: str, **values: Any) -> AsyncIterator[Desk]:
    if not (folder / "page-1.jpg").exists():
        picture("Total 12.50", dpi=100).crop((0, 0, 600, 300)).save(folder / "page-1.jpg")
    redis = RedisConnection(redis_url, client_name="ocr-test", timeout_seconds=2)
    await redis.open()
    try:
        breakers = Breakers(redis, "intelliflow", Metrics("test").dependencies, threshold=2, reset_ms=60_000)
        usual = {
            "ocr_engine": name,
            "google_vision_api_key": GOOGLE_KEY,
            "google_vision_base_url": url,
            "aws_access_key_id": AWS_KEY_ID,
            "aws_secret_access_key": AWS_SECRET,
            "aws_region": REGION,
            "aws_endpoint_url_textract": url,
        }
        async with opened_engine(ocr_settings(**usual | values), InThreads(), breakers.of) as engine:
            yield Desk(engine, breakers.of(name, 60.0), folder)
    finally:
        await redis.close()


@pytest.fixture
async def cloud() -> AsyncIterator[CloudOcr]:
    async with CloudOcr() as server:
        yield server


@BOTH
async def test_a_document_is_read(name: str, cloud: CloudOcr, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "source").write_bytes(pdf(ENGLISH))
    pages: list[Page] = []

    async def keep(page: Page) -> None:
        pages.append(page)

    async with desk(name, cloud.url, tmp_path, redis_url) as one:
        scans = [Page(1, "", "none", "NO_TEXT")]
        order = PageOrder("application/pdf", 200, "de-AT")
        await recognise_pages(InThreads(), one.engine, tmp_path, scans, order, keep)

    assert character_error_rate(ENGLISH, pages[0].text) <= 0.01
    assert pages[0].confidence is not None
    assert 0.9 < pages[0].confidence <= 1
    assert [picture[:3] for picture in cloud.pictures] == [b"\xff\xd8\xff"]
    ((_, asked),) = cloud.requests
    if name == GOOGLE:
        assert asked["requests"][0]["imageContext"] == {"languageHints": ["de"]}


@BOTH
async def test_a_blank_page_has_no_text(name: str, cloud: CloudOcr, tmp_path: Path, redis_url: str) -> None:
    Image.new("L", (400, 300), 255).save(tmp_path / "page-1.jpg")

    async with desk(name, cloud.url, tmp_path, redis_url) as one:
        found = await one.read()

    assert (found.text, found.confidence) == ("", None)


async def test_a_passing_key_is_signed_with_its_token(cloud: CloudOcr, tmp_path: Path, redis_url: str) -> None:
    async with desk(TEXTRACT, cloud.url, tmp_path, redis_url, aws_session_token=AWS_TOKEN) as one:
        assert "12.50" in (await one.read()).text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (GOOGLE, {"google_vision_api_key": "wrong"}),
        (TEXTRACT, {"aws_secret_access_key": "wrong"}),
        (TEXTRACT, {"aws_access_key_id": "AKIDWRONG"}),
        (TEXTRACT, {"aws_region": "us-east-1"}),
    ],
)
async def test_with_a_wrong_key_the_backlog_waits(
    name: str, values: dict[str, str], cloud: CloudOcr, tmp_path: Path, redis_url: str
) -> None:
    async with desk(name, cloud.url, tmp_path, redis_url, **values) as one:
        first, second = await one.outcome(), await one.outcome()

    assert isinstance(first, Defer)
    assert first.code == "PROVIDER_MISCONFIGURED"
    assert "wrong" not in first.reason.lower()
    assert isinstance(second, Hold)
    assert second.code == "CIRCUIT_OPEN"
    assert 50 < second.seconds <= 60
    assert len(cloud.requests) <= 1


SLOW_DOWN = {"Retry-After": "7"}


@pytest.mark.parametrize(
    ("name", "answer", "expected", "seconds", "counts"),
    [
        (
            GOOGLE,
            Answer(429, {"error": {"status": "RESOURCE_EXHAUSTED"}}, SLOW_DOWN),
            (Defer, "RATE_LIMITED"),
            7,
            False,
        ),
        (GOOGLE, Answer(429, {}), (Defer, "RATE_LIMITED"), 30, False),
        (GOOGLE, Answer(503, {}, SLOW_DOWN), (Retry, "PROVIDER_ERROR"), 7, True),
        (GOOGLE, Answer(500, b"<html>"), (Retry, "PROVIDER_ERROR"), 0, True),
        (GOOGLE, Answer(403, {"error": {"status": "PERMISSION_DENIED"}}), (Defer, "PROVIDER_MISCONFIGURED"), 5, True),
        (GOOGLE, Answer(301, {}), (Defer, "PROVIDER_MISCONFIGURED"), 5, True),
        (GOOGLE, Answer(200, b"{"), (Retry, "PROVIDER_ERROR"), 0, True),
        (GOOGLE, Answer(200, b"[1]"), (Retry, "PROVIDER_ERROR"), 0, True),
        (GOOGLE, Answer(200, {"responses": []}), (Retry, "PROVIDER_ERROR"), 0, True),
        (GOOGLE, Answer(200, {"responses": [{"fullTextAnnotation": 5}]}), (Retry, "PROVIDER_ERROR"), 0, False),
        (GOOGLE, Answer(200, {"responses": [{"error": {"code": 14}}]}), (Retry, "PROVIDER_ERROR"), 0, True),
        (GOOGLE, Answer(200, {"responses": [{"error": {"code": 8}}]}), (Defer, "RATE_LIMITED"), 30, False),
        (GOOGLE, Answer(200, b"x" * 9_000_000), (Retry, "PROVIDER_ERROR"), 0, True),
        (TEXTRACT, Answer(400, {"__type": "ThrottlingException"}, SLOW_DOWN), (Defer, "RATE_LIMITED"), 7, False),
        (
            TEXTRACT,
            Answer(400, {}, {"x-amzn-ErrorType": "ProvisionedThroughputExceededException:http://x"}),
            (Defer, "RATE_LIMITED"),
            30,
            False,
        ),
        (TEXTRACT, Answer(500, {"__type": "InternalServerError"}), (Retry, "PROVIDER_ERROR"), 0, True),
        (TEXTRACT, Answer(400, {"__type": "a#AccessDeniedException"}), (Defer, "PROVIDER_MISCONFIGURED"), 5, True),
        (TEXTRACT, Answer(400, {"__type": "NobodyKnowsException"}), (Retry, "PROVIDER_ERROR"), 0, False),
        (TEXTRACT, Answer(200, {"Blocks": None}), (Retry, "PROVIDER_ERROR"), 0, True),
        (TEXTRACT, Answer(200, {"Blocks": [{"BlockType": "LINE"}]}), (Retry, "PROVIDER_ERROR"), 0, False),
        (TEXTRACT, Answer(200, {"Blocks": ["LINE"]}), (Retry, "PROVIDER_ERROR"), 0, False),
    ],
)
async def test_what_follows_from_an_answer(
    name: str,
    answer: Answer,
    expected: tuple[type[Outcome], str],
    seconds: float,
    counts: bool,  # noqa: FBT001
    cloud: CloudOcr,
    tmp_path: Path,
    redis_url: str,
) -> None:
    """`counts`: the circuit has seen a failure, or is open."""
    async with desk(name, cloud.url, tmp_path, redis_url) as one:
        cloud.will(answer)
        outcome = await one.outcome()
        reading = await one.breaker.ask("peek")

    assert isinstance(outcome, (Defer, Retry))
    assert (type(outcome), outcome.code) == expected
    assert (outcome.seconds if isinstance(outcome, Defer) else outcome.floor) == seconds
    assert (reading.failures > 0 or one.circuit == "OPEN") is counts


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (GOOGLE, Answer(200, {"responses": [{"error": {"code": 3, "message": "Image is too large"}}]})),
        (GOOGLE, Answer(400, {"error": {"message": "Request payload size exceeds the limit"}})),
        (GOOGLE, Answer(413, b"")),
        (TEXTRACT, Answer(400, {"__type": "DocumentTooLargeException"})),
    ],
)
async def test_a_picture_that_is_too_large_is_said_to_be(
    name: str, answer: Answer, cloud: CloudOcr, tmp_path: Path, redis_url: str
) -> None:
    async with desk(name, cloud.url, tmp_path, redis_url) as one:
        cloud.will(answer)
        with pytest.raises(PictureTooLarge):
            await one.read()
        assert (await one.breaker.ask("peek")).failures == 0


@BOTH
async def test_a_picture_that_it_cannot_read_is_the_page_s_problem(
    name: str, cloud: CloudOcr, tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "page-1.jpg").write_bytes(b"no picture")

    async with desk(name, cloud.url, tmp_path, redis_url) as one:
        with pytest.raises(DocumentError, match="UNSUPPORTED"):
            await one.read()
        assert one.circuit == "CLOSED"


@BOTH
async def test_out_of_reach_is_nobody_s_attempt(name: str, tmp_path: Path, redis_url: str) -> None:
    async with desk(name, f"http://127.0.0.1:{free_port()}", tmp_path, redis_url) as one:
        outcomes = [await one.outcome() for _ in range(3)]

    codes = [outcome.code for outcome in outcomes if isinstance(outcome, (Defer, Hold))]
    assert codes == ["PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", "CIRCUIT_OPEN"]
    assert one.circuit == "OPEN"


@BOTH
async def test_no_secret_leaves_but_where_it_belongs(
    name: str, cloud: CloudOcr, tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk(name, cloud.url, tmp_path, redis_url) as one:
        await one.read()

    sent = str(cloud.requests)
    assert GOOGLE_KEY not in sent + caplog.text
    assert AWS_SECRET not in sent + caplog.text
