"""What a producer wrote, as a typed value, or why nobody can ever work on it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from worker_runtime.outcome import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterator

M = TypeVar("M", bound=BaseModel)
MOST_PROBLEMS = 3
# Half of a character outside the basic plane, which JavaScript writes when a text was cut in the middle of an emoji.
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(model: type[M], raw: bytes | None, most_bytes: int) -> M | DeadLetter:
    """Read a job's data as JSON of that model; a dead letter says in one sentence what is wrong with it."""
    if raw is None:
        return DeadLetter("INVALID_PAYLOAD", "the job has no data: it was removed while it waited")
    if len(raw) > most_bytes:
        return DeadLetter("INVALID_PAYLOAD", f"{len(raw)} bytes, over QUEUE_MAX_PAYLOAD_BYTES ({most_bytes})")
    problem = ""
    for reading in readings(raw):
        try:
            return model.model_validate_json(reading)
        except ValidationError as error:
            problem = explain(error)
    return DeadLetter("INVALID_PAYLOAD", problem)


def readings(raw: bytes) -> Iterator[bytes]:
    """Yield the bytes as they are and, where that may help, with a question mark for each half of a character."""
    yield raw
    if SURROGATE.search(raw):
        try:
            yield json.dumps(json.loads(raw), ensure_ascii=False).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            return


def explain(error: ValidationError) -> str:
    """Say in one sentence which field is wrong, without showing what it holds."""
    problems = [explain_problem(problem) for problem in error.errors(include_url=False, include_input=False)]
    more = f" (and {len(problems) - MOST_PROBLEMS} more)" if len(problems) > MOST_PROBLEMS else ""
    return "; ".join(problems[:MOST_PROBLEMS]) + more


def explain_problem(problem: Any) -> str:
    """Say where a payload is wrong and how."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "json_invalid":
        return f"not readable as JSON: {problem['ctx']['error']}"
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
