"""Redaction looks at text that anybody may have written: it must not be slow for any of it."""

from __future__ import annotations

import time

import pytest

from worker_runtime.redaction import redact


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000 + " @", "a@" * 100_000, "://" + "a:" * 100_000 + "@", "+1 " * 70_000, "x@" + "a." * 100_000],
    ids=["no domain", "many at signs", "login", "phones", "long domain"],
)
def test_two_hundred_thousand_characters_take_no_time(text: str) -> None:
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 1


def test_what_it_masks() -> None:
    assert redact("to ann.b+c@example.org") == "to ***@example.org"
    assert redact("redis://user:pa:ss@host:1/0") == "redis://***@host:1/0"
    assert redact("x=ann@example.org,bob@example.com") == "***@example.org,***@example.com"
