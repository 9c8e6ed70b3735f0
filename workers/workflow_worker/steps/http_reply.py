"""What of an answer becomes the output of the step that asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worker_runtime.postgres.text import DEEPEST_JSON, UnreadableJson, read_json

if TYPE_CHECKING:
    from worker_runtime.egress import EgressReply

__all__ = ["MOST_BODY_BYTES", "output_of"]

# What a worker keeps of an answer. As the output of a step it must be less than 256 KB of JSON.
MOST_BODY_BYTES = 131_072
MOST_JSON_CHARACTERS = 240_000
# Written as JSON a character takes twelve at most.
MOST_TEXT_CHARACTERS = MOST_JSON_CHARACTERS // 12
TOLD_HEADERS = ("content-location", "content-type", "etag", "last-modified", "link", "location", "x-request-id")
MOST_HEADER_CHARACTERS = 1_000
# It has to fit into an output that is within the output of another step.
DEEPEST_BODY = DEEPEST_JSON // 2


def output_of(reply: EgressReply) -> dict[str, Any]:
    """Return the status, some headers by their small names, and the body: JSON as such, anything else as text.

    `truncated` tells that the body was longer than is kept; it is a text then.
    """
    headers = {name: value[:MOST_HEADER_CHARACTERS] for name in TOLD_HEADERS if (value := reply.headers.get(name))}
    body, truncated = _body(reply)
    return {"status": reply.status, "headers": headers, "body": body, "truncated": truncated}


def _body(reply: EgressReply) -> tuple[Any, bool]:
    if not reply.body:
        return None, not reply.whole
    if reply.whole and _is_json(reply.headers.get("content-type", "")):
        try:
            value = read_json(reply.body, DEEPEST_BODY)
            if len(json.dumps(value, allow_nan=False)) <= MOST_JSON_CHARACTERS:
                return value, False
        except UnreadableJson:
            # It only says that it is JSON.
            pass
    text = reply.body.decode("utf-8", "replace")
    if len(json.dumps(text)) <= MOST_JSON_CHARACTERS:
        return text, not reply.whole
    return text[:MOST_TEXT_CHARACTERS], True


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
