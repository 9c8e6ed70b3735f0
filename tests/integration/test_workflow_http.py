"""The step `http`, to receivers on loopback, by the guarded client that workers use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from scripted_http import CLOSE, HANG, HANG_IN_BODY, ScriptedHttp, answer
from worker_runtime.egress import egress
from workflow_documents import workflow
from workflow_worker.steps.http_reply import MOST_BODY_BYTES
from workflow_worker.testing import Ended, Trial


@dataclass(frozen=True)
class Settings:
    egress_allowed_cidrs: tuple[str, ...] = ("127.0.0.0/8",)


def asking(server: ScriptedHttp, **more: Any) -> dict[str, Any]:
    step = {"id": "a", "http": {"method": "POST", "url": server.url, "json": {"n": "input"}}}
    return workflow({**step, **more}, output={"reply": "steps.a"})


async def tried(document: dict[str, Any], settings: Settings | None = None) -> Ended:
    async with egress(settings or Settings(), kept_bytes=MOST_BODY_BYTES) as client:
        return await Trial(document, 5, http=client).run()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_goes_out_and_the_answer_comes_back(method: str) -> None:
    async with ScriptedHttp() as server:
        server.will(answer(201, b'{"id": 7}', Content_Type="application/json; charset=utf-8"))
        document = asking(server)
        document["steps"][0]["http"]["method"] = method
        if method == "GET":
            del document["steps"][0]["http"]["json"]
        ended = await tried(document)
    assert ended.result == {
        "reply": {
            "status": 201,
            "headers": {"content-type": "application/json; charset=utf-8"},
            "body": {"id": 7},
            "truncated": False,
        }
    }
    (seen,) = server.requests
    assert seen.line == f"{method} /hook HTTP/1.1"
    assert seen.body == (b"" if method == "GET" else b'{"n": 5}')
    assert len(seen.headers["idempotency-key"]) == 36


async def test_a_private_address_is_refused_for_good() -> None:
    async with ScriptedHttp() as server:
        ended = await tried(asking(server), Settings(()))
    assert ended.status == "failed"
    assert str(ended.error).startswith("EGRESS_REFUSED: step a: 127.0.0.1 is not reached by http on port ")
    assert server.requests == []


async def test_no_redirect_is_followed() -> None:
    async with ScriptedHttp() as server, ScriptedHttp() as elsewhere:
        server.will(answer(307, b"", Location=elsewhere.url))
        ended = await tried(asking(server))
    assert ended.error == "HTTP_307: step a: redirects are not followed"
    assert elsewhere.requests == []


async def test_what_is_silent_or_hangs_up_is_tried_again_with_the_same_key() -> None:
    async with ScriptedHttp() as server:
        server.will(HANG, CLOSE, answer(503, Retry_After="1"), answer(200))
        ended = await tried(asking(server, timeoutMs=200, retry={"attempts": 4, "delaysMs": [1]}))
    assert ended.status == "completed"
    assert len(server.requests) == 4
    assert len({seen.headers["idempotency-key"] for seen in server.requests}) == 1


async def test_its_last_failure_says_what_was_wrong() -> None:
    async with ScriptedHttp() as server:
        server.always(HANG)
        ended = await tried(asking(server, timeoutMs=200, retry={"attempts": 1}))
    assert ended.error == "NO_ANSWER: step a: 127.0.0.1 did not answer within 0.2 s"


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (answer(200, json.dumps("x" * 300_000).encode(), Content_Type="application/json"), '"' + "x" * 131_071),
        (HANG_IN_BODY, "half"),
    ],
)
async def test_what_is_too_long_or_slow_is_kept_as_far_as_it_came(reply: Any, body: str) -> None:
    async with ScriptedHttp() as server:
        server.will(reply)
        ended = await tried(asking(server, timeoutMs=500))
    assert ended.status == "completed"
    assert (ended.result["reply"]["body"], ended.result["reply"]["truncated"]) == (body, True)
