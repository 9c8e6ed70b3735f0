"""The local model: the same vector for the same text whatever is beside it, and no other file than the one we know."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import pytest

from embedded_documents import local_embedder
from ingestion_worker.embeddings import local
from ingestion_worker.embeddings.local import CALL_TOKENS, ModelMissing, calls, encoded, opened_local
from ingestion_worker.embeddings.wordpiece import SPECIAL_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "The cat sits outside.",
    "A man is playing guitar.",
    "A cat is sitting out in the garden, " * 12,
    "",
    "Überraschend schöne Straße",
    "漢字 and かな",
    "word " * 600,
    "The cat sits outside.",
]


async def test_a_vector_does_not_depend_on_what_is_computed_beside_it() -> None:
    """What a cache of vectors by text needs: to the last bit."""
    together = await local_embedder().embed(TEXTS)
    alone = [(await local_embedder().embed([text]))[0] for text in TEXTS]
    assert together == alone
    assert together[0] == together[-1]
    assert {len(vector) for vector in together} == {384}
    assert [round(math.hypot(*vector), 5) for vector in together] == [1.0] * len(TEXTS)


async def test_similar_texts_are_near() -> None:
    cat, man, other_cat = await local_embedder().embed([*TEXTS[:2], "A cat is sitting out in the garden"])
    assert sum(a * b for a, b in zip(cat, other_cat, strict=True)) == pytest.approx(0.748, abs=0.01)
    assert sum(a * b for a, b in zip(cat, man, strict=True)) == pytest.approx(0.036, abs=0.01)


async def test_of_a_text_that_is_too_long_the_begin_counts() -> None:
    assert len(set(map(tuple, await local_embedder().embed(["word " * 600, "word " * 510 + "other " * 90])))) == 1


async def test_nothing_is_asked_of_nothing() -> None:
    assert await local_embedder().embed([]) == []


def test_short_texts_are_computed_together_and_long_ones_alone() -> None:
    ids = encoded(["word " * length for length in (250, 3, 30, 200, 3, 30, 3)])
    found = list(calls(ids))
    assert found == [[1, 4, 6, 2, 5], [3], [0]]
    for call in found:
        assert len(call) * max(len(ids[number]) for number in call) <= CALL_TOKENS + SPECIAL_TOKENS


async def test_the_event_loop_turns_while_it_computes() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            # As often as it can: how often it came to that is what counts.
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    began = time.monotonic()
    await local_embedder().embed(["word " * 250] * 6)
    took = time.monotonic() - began
    turning.cancel()
    # A loop that was held up would have turned some seven times; this one turns hundreds of times a second.
    assert turns > 30 * took


async def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"another model")
    monkeypatch.setattr(local, "model_file", lambda: tmp_path / "model.onnx")
    with pytest.raises(ModelMissing, match="install it anew"):
        async with opened_local():
            pass


async def test_without_the_extra_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(ModelMissing, match=r"intelliflow-workers\[embeddings\]"):
        async with opened_local():
            pass


async def test_it_opens_and_closes() -> None:
    async with opened_local() as one:
        assert await one.embed(TEXTS[:1]) == await local_embedder().embed(TEXTS[:1])
