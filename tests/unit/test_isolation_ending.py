"""What the end of a child means, for every way there is to end."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion_worker.isolation.ending import Said, result_of
from ingestion_worker.isolation.task import Limits
from ingestion_worker.isolation.wire import MOST_FRAME_BYTES, Ended, ForkOrder, FrameReader, Garbled, framed
from ingestion_worker.problem import DocumentError, Problem

MEBIBYTE = 1 << 20
LIMITS = Limits(seconds=60, memory_bytes=100 * MEBIBYTE, file_bytes=5 * MEBIBYTE)
MUCH, LITTLE = 50 * MEBIBYTE, 30 * MEBIBYTE

SILENT_ENDS = [
    (Ended(1, None), Problem.CRASH, "could not be started, or was lost"),
    (Ended(1, 0), Problem.CRASH, "without a result (exit 0)"),
    (Ended(1, 7), Problem.CRASH, "(exit 7)"),
    (Ended(1, -signal.SIGXCPU), Problem.TIMEOUT, "60 s of computing"),
    (Ended(1, -signal.SIGKILL, cpu_seconds=61), Problem.TIMEOUT, "60 s of computing"),
    (Ended(1, -signal.SIGKILL, cpu_seconds=2), Problem.OOM, "more memory than 100 MiB"),
    (Ended(1, -signal.SIGXFSZ), Problem.TOO_LARGE, "larger than 5 MiB"),
    (Ended(1, -signal.SIGABRT, MUCH), Problem.OOM, "more memory than 100 MiB"),
    (Ended(1, -signal.SIGSEGV, MUCH), Problem.OOM, "more memory than 100 MiB"),
    (Ended(1, -signal.SIGILL, MUCH), Problem.OOM, "more memory than 100 MiB"),
    (Ended(1, -signal.SIGABRT, LITTLE), Problem.CRASH, "SIGABRT"),
    (Ended(1, -signal.SIGSEGV, LITTLE), Problem.CRASH, "SIGSEGV"),
    (Ended(1, -signal.SIGSYS, MUCH), Problem.CRASH, "SIGSYS"),
    (Ended(1, -50), Problem.CRASH, "signal 50"),
]


@pytest.mark.parametrize(("ended", "problem", "words"), SILENT_ENDS)
def test_an_end_without_a_word(ended: Ended, problem: Problem, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        result_of(ended, Said(), LIMITS, overtime=False)
    assert caught.value.problem is problem
    assert words in caught.value.sentence


def test_the_last_word_counts_whatever_the_end() -> None:
    said = Said({"done": {"pages": 3}})
    assert result_of(Ended(1, -signal.SIGKILL), said, LIMITS, overtime=False) == {"pages": 3}


@given(st.sampled_from(Problem), st.text())
def test_a_problem_arrives_as_it_was_said(problem: Problem, sentence: str) -> None:
    with pytest.raises(DocumentError) as caught:
        result_of(Ended(1, 0), Said({"failed": [problem.value, sentence]}), LIMITS, overtime=False)
    assert caught.value.problem is problem
    assert caught.value.sentence == sentence[:1000]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["done", "failed", "progress", "else"]), JSON))
def test_whatever_a_child_says_last_is_a_result_or_a_problem(word: dict[str, Any]) -> None:
    with suppress(DocumentError):
        assert isinstance(result_of(Ended(1, 0), Said(word), LIMITS, overtime=False), dict)


@given(st.lists(st.dictionaries(st.text(max_size=9), st.integers(), max_size=3), max_size=4), st.integers(1, 99))
def test_frames_arrive_whole_however_they_are_cut(frames: list[dict[str, Any]], step: int) -> None:
    stream, reader, arrived = b"".join(map(framed, frames)), FrameReader(), []
    for start in range(0, len(stream), step):
        arrived += reader.feed(stream[start : start + step])
    assert arrived == frames


@given(st.binary(max_size=200))
def test_noise_is_garbled_or_waits_for_more(noise: bytes) -> None:
    with suppress(Garbled):
        assert all(isinstance(frame, dict) for frame in FrameReader().feed(noise))


def test_a_frame_of_deep_nesting_is_garbled() -> None:
    deep = b"[" * 60_000
    with pytest.raises(Garbled):
        FrameReader().feed(len(deep).to_bytes(4, "big") + deep)


def test_what_is_too_large_is_not_said() -> None:
    with pytest.raises(ValueError, match="a frame of"):
        framed({"done": "x" * MOST_FRAME_BYTES})
    with pytest.raises(ValueError, match="belongs into a file"):
        ForkOrder(1, "a:b", "/", {"text": "x" * 200_000}, LIMITS).message()


def test_an_order_arrives_as_it_was_written() -> None:
    order = ForkOrder(1, "a:b", "/folder", {"password": "p", "pages": [1, 2]}, LIMITS)
    assert ForkOrder.read(json.loads(order.message())["fork"]) == order
