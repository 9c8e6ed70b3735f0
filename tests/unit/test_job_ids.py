"""Which job ids a producer may choose."""

from __future__ import annotations

import pytest

from worker_runtime.bullmq.names import QueueName, refuse_job_id


@pytest.mark.parametrize(
    "job_id", ["", "7", "-7", "a:b", "repeat:a", "delayed", "wait", "failed", "stalled-check-py", "id"]
)
def test_an_id_that_would_break_something_is_refused(job_id: str) -> None:
    assert refuse_job_id(job_id)


@pytest.mark.parametrize("job_id", ["07", "7a", "repeat:tick:1700000000000", "waiting", "Wait", "a b", "\u00fc"])
def test_any_other_is_not(job_id: str) -> None:
    assert refuse_job_id(job_id) is None


def test_every_key_of_a_queue_is_among_the_refused_ids() -> None:
    """As BullMQ's own package names them."""
    from bullmq.queue_keys import QueueKeys  # noqa: PLC0415  only this test compares

    theirs = QueueKeys("intelliflow").getKeys("events")
    assert all(QueueName("intelliflow", "events").key(part) == key for part, key in theirs.items())
    assert all(refuse_job_id(part) for part in theirs)
