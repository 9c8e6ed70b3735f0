"""An OpenAI-compatible service: what it is asked, what it may answer, and what follows from everything else."""

from __future__ import annotations

import base64
import json
import math
from array import array
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from embedded_documents import embedding_server, local_embedder
from ingestion_worker.embeddings.embedder import Blame, NotEmbedded
from ingestion_worker.embeddings.openai import MOST_TEXTS, OpenAiEmbedder, Service, batches
from ingestion_worker.embeddings.opened import GuardedEmbedder, opened_embedder
from ingestion_worker.settings import IngestionSettings
from scripted_http import CLOSE, ENDLESS, HANG, HANG_IN_BODY, ScriptedHttp, answer
from worker_runtime.breaker import Breakers
from worker_runtime.egress import trusted_egress
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import DeadLetter, Defer, Hold, Retry
from worker_runtime.redis.connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


TEXTS = ["One thing.", "Another thing, which is longer.", "Ein drittes Ding."]
NOW = 1_000_000.0


def vectors(*numbers: Sequence[float], first: int = 0) -> bytes:
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(numbers, first)]
    return json.dumps({"data": data}).encode()


@asynccontextmanager
async def embedder(url: str, **service: Any) -> AsyncIterator[OpenAiEmbedder]:
    async with trusted_egress(kept_bytes=100_000) as http:
        yield OpenAiEmbedder(http, Service(url, "some-model", **{"timeout_seconds": 5.0, **service}), lambda: NOW)


async def refusal(*steps: Any, texts: Sequence[str] = ("a", "b"), **service: Any) -> NotEmbedded:
    """Ask a service that does what it is told; return what came of it."""
    async with ScriptedHttp() as server, embedder(server.url, **service) as one:
        server.will(*steps)
        with pytest.raises(NotEmbedded) as caught:
            await one.embed(texts)
    return caught.value


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_vectors_are_those_of_the_texts_in_their_order(encoding: str) -> None:
    async with embedding_server(encoding=encoding) as server, embedder(server.url, api_key="s3cret") as one:
        found = await one.embed(TEXTS)
    expected = await local_embedder().embed(TEXTS)
    assert [round(math.dist(*pair), 6) for pair in zip(found, expected, strict=True)] == [0, 0, 0]
    assert server.asked == [{"model": "some-model", "input": TEXTS, "encoding_format": "base64"}]


async def test_many_texts_are_sent_in_batches() -> None:
    texts = [f"Text number {number}." for number in range(2 * MOST_TEXTS + 5)]
    async with embedding_server() as server, embedder(server.url) as one:
        found = await one.embed(texts)
    assert [len(asked["input"]) for asked in server.asked] == [MOST_TEXTS, MOST_TEXTS, 5]
    assert [text for asked in server.asked for text in asked["input"]] == texts
    assert math.dist(found[-1], (await local_embedder().embed(texts[-1:]))[0]) < 1e-6


def test_long_texts_make_smaller_batches() -> None:
    texts = ["word " * 500] * 40
    assert [len(batch) for batch in batches([*texts, "word " * 10_000, "word"])] == [16, 16, 8, 1, 1]
    assert list(batches([])) == []


async def test_shortened_vectors_are_another_models() -> None:
    async with embedding_server() as server, embedder(server.url, dimensions=128) as one:
        (found,) = await one.embed(["A text."])
    assert (one.name, one.model, len(found)) == ("some-model", "some-model/128", 128)
    assert server.asked[0]["dimensions"] == 128
    assert math.hypot(*found) == pytest.approx(1)


async def test_the_settings_open_it_and_its_key_is_a_secret() -> None:
    async with embedding_server(key="s3cret") as server:
        settings = IngestionSettings(
            enable_embeddings=True,
            embedding_provider="openai",
            embedding_base_url=server.url + "/",
            embedding_model="m",
            embedding_api_key=SecretStr("s3cret"),
            database_url=SecretStr("postgresql://localhost/x"),
        )
        async with opened_embedder(settings) as one:
            assert len((await one.embed(["A text."]))[0]) == 384
    assert "s3cret" not in json.dumps(settings.public(), default=str)


NUMBERS = base64.b64encode(array("f", [1.0, 2.0]).tobytes()).decode()
OUTCOMES = [
    (answer(401), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (answer(403), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (answer(404), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (answer(302, location="/elsewhere"), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (answer(400), DeadLetter, "PROVIDER_REJECTED", Blame.NOBODY),
    (answer(413), DeadLetter, "PROVIDER_REJECTED", Blame.NOBODY),
    (answer(422), DeadLetter, "PROVIDER_REJECTED", Blame.NOBODY),
    (answer(408), Retry, "PROVIDER_UNAVAILABLE", Blame.PROVIDER),
    (answer(500), Retry, "PROVIDER_UNAVAILABLE", Blame.PROVIDER),
    (answer(503), Retry, "PROVIDER_UNAVAILABLE", Blame.PROVIDER),
    (answer(429), Hold, "RATE_LIMITED", Blame.NOBODY),
    (answer(429, b'{"error": {"code": "insufficient_quota"}}'), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (CLOSE, Retry, "PROVIDER_UNAVAILABLE", Blame.PROVIDER),
    (HANG, Retry, "PROVIDER_UNAVAILABLE", Blame.PROVIDER),
    (HANG_IN_BODY, Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (ENDLESS, Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, b"no JSON"), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, b"[" * 50_000), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, b'{"data": 1}'), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, vectors([1.0])), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, vectors([1.0], [2.0], first=1)), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, vectors([1.0, 2.0], [1.0])), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (answer(200, vectors([1.0], [math.nan])), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, vectors([1.0], [math.inf])), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, vectors([1.0], [0.0])), Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
    (answer(200, vectors([1.0], [])), Defer, "PROVIDER_MISCONFIGURED", Blame.CONFIGURATION),
    (answer(200, f'{{"data": [{{"index": 0, "embedding": "{NUMBERS}"}}, {{"index": 1, "embedding": "%"}}]}}'.encode()),
     Retry, "PROVIDER_NOT_UNDERSTOOD", Blame.PROVIDER),
]  # fmt: skip


@pytest.mark.parametrize(("step", "kind", "code", "blame"), OUTCOMES)
async def test_every_answer_has_a_consequence(step: Any, kind: type, code: str, blame: Blame) -> None:
    error = await refusal(step, timeout_seconds=0.3)
    assert (type(error.outcome), error.outcome.code, error.blame) == (kind, code, blame)


async def test_a_service_that_is_away_costs_no_attempt() -> None:
    async with ScriptedHttp() as server:
        url = server.url
    async with embedder(url) as one:
        with pytest.raises(NotEmbedded) as caught:
            await one.embed(["a"])
    assert isinstance(caught.value.outcome, Defer)
    assert caught.value.blame is Blame.PROVIDER


async def test_retry_after_is_honoured() -> None:
    limited = await refusal(answer(429, retry_after="7"))
    assert isinstance(limited.outcome, Hold)
    assert limited.outcome.seconds == 7
    busy = await refusal(answer(503, retry_after="9"))
    assert isinstance(busy.outcome, Retry)
    assert busy.outcome.floor == 9


async def test_nothing_of_the_text_or_the_key_is_told() -> None:
    words = b'{"error": {"code": "context_length_exceeded", "message": "your text: my secret diary"}}'
    error = await refusal(answer(400, words), texts=["my secret diary"], api_key="s3cret")
    assert "context_length_exceeded" in str(error)
    assert "EMBEDDING_CHUNK_TOKENS" in str(error)
    assert "diary" not in str(error)
    assert "s3cret" not in str(error)


async def test_other_lengths_than_wanted_are_refused() -> None:
    error = await refusal(answer(200, vectors([1.0, 2.0])), texts=["a"], dimensions=3)
    assert "vectors of 2 numbers instead of 3" in str(error)


async def test_a_model_whose_vectors_change_their_length_is_refused() -> None:
    async with ScriptedHttp() as server, embedder(server.url) as one:
        server.will(answer(200, vectors([1.0, 2.0])), answer(200, vectors([1.0])))
        await one.embed(["a"])
        with pytest.raises(NotEmbedded, match="of 1 numbers instead of 2") as caught:
            await one.embed(["b"])
    assert caught.value.blame is Blame.CONFIGURATION


@asynccontextmanager
async def guarded(server: ScriptedHttp, redis_url: str) -> AsyncIterator[GuardedEmbedder]:
    redis = RedisConnection(redis_url, client_name="test")
    await redis.open()
    try:
        breakers = Breakers(redis, "test", Metrics("ingestion-worker").dependencies, threshold=2, reset_ms=60_000)
        async with embedder(server.url) as one:
            yield GuardedEmbedder(one, breakers.of("openai", 60))
    finally:
        await redis.close()


async def test_a_wrong_key_opens_the_circuit_at_once(redis_url: str) -> None:
    async with ScriptedHttp() as server, guarded(server, redis_url) as one:
        server.always(answer(401))
        codes = [await code_of(one), await code_of(one)]
    assert codes == ["PROVIDER_MISCONFIGURED", "CIRCUIT_OPEN"]
    assert len(server.requests) == 1


async def test_an_outage_opens_the_circuit_after_some_failures(redis_url: str) -> None:
    async with ScriptedHttp() as server, guarded(server, redis_url) as one:
        server.always(answer(503))
        codes = [await code_of(one) for _ in range(3)]
    assert codes == ["PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", "CIRCUIT_OPEN"]


async def test_a_text_that_is_refused_and_a_limit_leave_the_circuit_closed(redis_url: str) -> None:
    async with ScriptedHttp() as server, guarded(server, redis_url) as one:
        server.will(answer(400), answer(429), answer(400), answer(200, vectors([3.0, 4.0])))
        codes = [await code_of(one) for _ in range(3)]
        assert await one.embed(["a"]) == [[0.6, 0.8]]
    assert codes == ["PROVIDER_REJECTED", "RATE_LIMITED", "PROVIDER_REJECTED"]


async def code_of(one: GuardedEmbedder) -> str:
    with pytest.raises(NotEmbedded) as caught:
        await one.embed(["a"])
    return caught.value.outcome.code
