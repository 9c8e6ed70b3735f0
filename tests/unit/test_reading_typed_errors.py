"""What readers raise for want of memory is no mistake of ours, and no damage of the file's."""

from __future__ import annotations

import errno

import pytest

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.broken import typed_errors


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (MemoryError(), Problem.OOM),
        (OSError(errno.ENOMEM, "no memory"), Problem.OOM),
        (OSError(errno.EIO, "no disk"), Problem.CRASH),
        (EOFError(), Problem.CORRUPT),
        (RecursionError(), Problem.BOMB),
    ],
)
def test_each_error_has_its_name(error: Exception, problem: Problem) -> None:
    with pytest.raises(DocumentError) as raised, typed_errors():
        raise error
    assert raised.value.problem == problem
