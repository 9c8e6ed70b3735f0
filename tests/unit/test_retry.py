"""The retry table of the contracts, and Node's rules for a job's own options."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_runtime.retry import JobOptionsRetry, ScheduledRetry
from worker_runtime.settings import WorkerSettings

TABLE = {
    "EVENTS": (3, [1, 5]),
    "TEXT_EXTRACTION": (3, [1, 5]),
    "EMBEDDING_GENERATION": (3, [1, 5]),
    "SMS": (3, [1, 5]),
    "OCR_PROCESSING": (2, [1]),
    "EMAIL": (5, [1, 5, 30, 150]),
    "WEBHOOK": (5, [1, 5, 30, 150]),
}


@pytest.mark.parametrize("queue", TABLE)
def test_the_shipped_table(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost:6379/0")
    policy = WorkerSettings(health_port=0).retry_policy(queue)
    attempts, delays = TABLE[queue]
    assert policy.attempts({}) == attempts
    for made, delay in enumerate(delays, start=1):
        waited = [policy.delay({"attempts": 50}, made, Random(seed)) for seed in range(200)]
        assert all(seconds is not None and delay * 0.9 <= seconds <= delay * 1.1 for seconds in waited)
    assert policy.delay({}, attempts, Random(1)) is None


@pytest.mark.parametrize(("asked", "granted"), [(1, 1), (20, 20), (21, 3), (0, 3), (-1, 3), ("7", 3), (True, 3)])
def test_a_producer_s_attempts_win_only_when_allowed_and_sane(asked: Any, granted: int) -> None:
    assert ScheduledRetry(3, (1.0, 5.0), honour_producer=True).attempts({"attempts": asked}) == granted
    assert ScheduledRetry(3, (1.0, 5.0)).attempts({"attempts": asked}) == 3


def test_the_last_delay_repeats() -> None:
    policy = ScheduledRetry(9, (1.0, 5.0))
    assert 4.5 <= (policy.delay({}, 7, Random(1)) or 0) <= 5.5


@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({}, [None]),
        ({"attempts": 3}, [0, 0, None]),
        ({"attempts": 3, "backoff": 500}, [0.5, 0.5, None]),
        ({"attempts": 4, "backoff": {"type": "fixed", "delay": 200}}, [0.2, 0.2, 0.2, None]),
        ({"attempts": 4, "backoff": {"type": "exponential", "delay": 100}}, [0.1, 0.2, 0.4, None]),
        ({"attempts": 3, "backoff": {"type": "steps"}}, [1, 2, None]),
        ({"attempts": 3, "backoff": {"type": "nobody knows"}}, [None]),
    ],
)
def test_a_job_s_own_options_as_node_reads_them(options: dict[str, Any], delays: list[float | None]) -> None:
    policy = JobOptionsRetry({"steps": lambda made, _: made * 1000})
    assert [policy.delay(options, made, Random(1)) for made in range(1, len(delays) + 1)] == delays


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "delay", "jitter"]), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional={"attempts": anything, "backoff": anything}), st.integers(1, 50))
def test_no_options_a_producer_may_write_raise(options: dict[str, Any], made: int) -> None:
    for policy in (JobOptionsRetry(), ScheduledRetry(3, (1.0, 5.0), honour_producer=True)):
        assert policy.attempts(options) >= 1
        delay = policy.delay(options, made, Random(1))
        assert delay is None or 0 <= delay < 10**11
