"""What a producer wrote, read or refused."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from worker_runtime.outcome import DeadLetter
from worker_runtime.payload import decode


class Note(BaseModel):
    text: str


READ = {
    "plain": (b'{"text":"hello"}', "hello"),
    "a whole emoji": (b'{"text":"\\ud83d\\ude00"}', "\U0001f600"),
    "its first half": (b'{"text":"cut \\ud83d"}', "cut ?"),
    "its second half": (b'{"text":"\\uDE00 cut"}', "? cut"),
    "halves and wholes": (b'{"text":"\\ud83d\\ude00\\ud83d"}', "\U0001f600?"),
    "what only looks like one": (b'{"text":"\\\\ud83d"}', "\\ud83d"),
}


@pytest.mark.parametrize(("raw", "text"), READ.values(), ids=READ)
def test_a_text_is_read_whole_or_with_a_mark_for_what_was_cut(raw: bytes, text: str) -> None:
    assert decode(Note, raw, 1_000) == Note(text=text)


REFUSED = {
    "no data": (None, "the job has no data"),
    "too large": (b'{"text":"' + b"x" * 1_000 + b'"}', "1011 bytes, over QUEUE_MAX_PAYLOAD_BYTES (1000)"),
    "broken behind half an emoji": (b'{"text":"\\ud83d"', "not readable as JSON"),
    "too deep behind half an emoji": (b'["\\ud83d",' * 99, "not readable as JSON"),
    "half an emoji where none may be": (b'{"texts":"\\ud83d"}', "text is missing"),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_a_dead_letter_that_says_why(raw: bytes | None, reason: str) -> None:
    refused = decode(Note, raw, 1_000)
    assert isinstance(refused, DeadLetter)
    assert refused.code == "INVALID_PAYLOAD"
    assert refused.reason.startswith(reason)
