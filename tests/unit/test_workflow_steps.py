"""What each kind of step does, by the engine's own turns, in memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from notifications_worker.notification import Notification
from notifications_worker.notification import schema as notification_schema
from worker_runtime.egress import EgressRefused, EgressReply, NoAnswer, NotReached
from worker_runtime.outcome import PermanentError
from workflow_documents import EMAIL, TREES, WHOLE, Planted, workflow
from workflow_worker.context import StepFailed
from workflow_worker.definition import read_definition
from workflow_worker.steps.http_reply import MOST_BODY_BYTES, output_of
from workflow_worker.testing import Ended, Trial, answer

if TYPE_CHECKING:
    from workflow_worker.context import StepCall, WorkflowContext

ORDER = {"orderId": "o-1", "total": 30, "email": "ada@example.org"}
GET = {"method": "GET", "url": "https://x.example/"}


async def quote(_step: StepCall, *, amount: int) -> dict[str, int]:
    return {"price": amount * 2}


async def same(_step: StepCall, *, n: int) -> dict[str, int]:
    return {"n": n}


async def failed(trial: Trial) -> str:
    ended = await trial.run()
    assert ended.status == "failed"
    return ended.error or ""


class TestWhole:
    def trial(self, **more: Any) -> Trial:
        functions = {"pricing.quote": quote}
        return Trial(WHOLE, ORDER, functions=functions, workflows={"other": lambda given: given["size"]}, **more)

    @pytest.mark.parametrize("killed_once", [False, True])
    async def test_from_start_to_end(self, killed_once: bool) -> None:  # noqa: FBT001
        trial = self.trial(killed_once=killed_once)
        trial.will_answer(answer(503, Retry_After="7"), answer(201, {"amount": 200}))
        assert await trial.run() == Ended("waiting")
        assert 3607 <= trial.seconds < 3667
        trial.signal("invoice.paid", "o-2", {"amount": 1})
        assert await trial.run() == Ended("waiting")
        trial.signal("invoice.paid", "o-1", {"amount": 2})
        assert await trial.run() == Ended("completed", {"size": "big", "price": 60, "child": "big"})
        assert len(trial.notifications) == 1
        assert len(trial.requests) == (3 if killed_once else 2)
        assert len({request.headers["Idempotency-Key"] for request in trial.requests}) == 1
        assert trial.failures == [("charge", "HTTP_503: the server asks to try later, or has failed")]

    async def test_an_event_that_does_not_come(self) -> None:
        trial = self.trial()
        trial.will_answer(answer(200, {"amount": 5}))
        assert await trial.run() == Ended("waiting")
        assert await trial.after(86_399) == Ended("waiting")
        assert await trial.after(2) == Ended("completed", {"size": "small", "price": 60, "child": "small"})
        assert trial.outputs["paid"] is None

    async def test_an_input_that_is_none(self) -> None:
        trial = Trial(WHOLE, {"orderId": "O 1"}, functions={"pricing.quote": quote})
        assert await failed(trial) == "INVALID_INPUT: orderId must match ^[a-z0-9-]+$; total is missing"

    async def test_cancelled(self) -> None:
        trial = self.trial()
        await trial.run()
        trial.cancel_requested = True
        assert (await trial.run()).status == "cancelled"


class TestNotify:
    async def test_the_job_is_a_rule_s(self) -> None:
        step = {"notify": {**EMAIL, "data": {"order": "input.orderId"}, "priority": "URGENT"}}
        trial = Trial(workflow({"id": "greet", **step}), ORDER)
        assert (await trial.run()).status == "completed"
        ((queue, job),) = trial.jobs.values()
        key = str(uuid5(trial.id, "greet"))
        assert (queue, job.name, job.job_id, job.lifo, job.priority) == ("EMAIL", "email", key, True, 0)
        assert job.data == {
            "notificationId": key,
            "tenantId": "org-1",
            "channel": "EMAIL",
            "priority": "URGENT",
            "recipient": {"email": "ada@example.org"},
            "content": {"templateId": "order-paid", "templateData": {"order": "o-1"}},
            "metadata": {
                "executionId": str(trial.id),
                "rule": "order-followup",
                "step": "greet",
                "correlationId": str(trial.id),
            },
        }
        assert trial.outputs == {"greet": {"notificationId": key}}
        Draft202012Validator(json.loads(notification_schema())).validate(job.data)
        Notification.model_validate(job.data)

    async def test_an_event_s_correlation_is_kept(self) -> None:
        step = {"notify": {"channel": "SMS", "recipient": {"phone": "payload"}, "body": "Hi {{ input.payload }}"}}
        step["notify"]["recipient"] = {"phone": "input.payload"}
        trial = Trial(workflow(step), {"event": {}, "payload": "+491", "metadata": {"correlationId": "c-1"}})
        await trial.run()
        (sent,) = trial.notifications
        assert (sent["metadata"]["correlationId"], sent["content"]) == ("c-1", {"body": "Hi +491"})

    async def test_redis_being_out_costs_no_attempt(self) -> None:
        trial = Trial(workflow({"notify": EMAIL, "retry": {"attempts": 1}}), ORDER)
        trial.redis_outages = 3
        assert (await trial.run()).status == "completed"
        assert trial.failures == []
        assert 15 <= trial.seconds < 75
        assert len(trial.notifications) == 1

    async def test_without_an_address_nothing_is_sent(self) -> None:
        trial = Trial(workflow({"id": "greet", "notify": EMAIL}), {})
        error = await failed(trial)
        assert "EXPRESSION_FAILED: step greet: notify.recipient.email: `input.email`: there is no field email" in error
        assert trial.notifications == []
        assert len(trial.failures) == 1


class TestHttp:
    @pytest.mark.parametrize(
        ("step", "method", "content_type", "body"),
        [
            (
                {"method": "POST", "json": {"a": "input.total", "b": [1, "input.orderId"]}},
                "POST",
                "application/json",
                b'{"a": 30, "b": [1, "o-1"]}',
            ),
            ({"method": "PUT", "body": "order {{ input.orderId }}"}, "PUT", "text/plain; charset=utf-8", b"order o-1"),
            (
                {"method": "PATCH", "body": "<a/>", "headers": {"content-type": "text/xml"}},
                "PATCH",
                "text/xml",
                b"<a/>",
            ),
            ({"method": "DELETE"}, "DELETE", None, b""),
            ({"method": "GET"}, "GET", None, b""),
        ],
    )
    async def test_what_is_sent(self, step: Any, method: str, content_type: str | None, body: bytes) -> None:
        trial = Trial(workflow({"id": "a", "http": {"url": "https://x.example/{{ input.orderId }}", **step}}), ORDER)
        assert (await trial.run()).status == "completed"
        (request,) = trial.requests
        assert (request.method, request.url, request.body) == (method, "https://x.example/o-1", body)
        assert request.headers.get("Content-Type") == content_type
        assert request.headers["Idempotency-Key"] == str(uuid5(trial.id, "a"))

    async def test_it_is_part_of_the_trace(self) -> None:
        trial = Trial(workflow({"http": GET}))
        span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
        with trace.use_span(span):
            await trial.run()
        assert trial.requests[0].headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"

    @pytest.mark.parametrize(
        ("reply", "output"),
        [
            (
                answer(200, {"a": 1}, ETag="x", Set_Cookie="y"),
                ({"content-type": "application/json", "etag": "x"}, {"a": 1}),
            ),
            (answer(204), ({}, None)),
            (answer(201, b"ok", Content_Type="text/plain"), ({"content-type": "text/plain"}, "ok")),
            (answer(200, b"{oops", Content_Type="application/json"), ({"content-type": "application/json"}, "{oops")),
            (answer(200, b"[NaN]", Content_Type="application/json"), ({"content-type": "application/json"}, "[NaN]")),
            (answer(200, b"[1]", Content_Type="application/hal+json"), ({"content-type": "application/hal+json"}, [1])),
            (answer(200, b"\xff"), ({}, "�")),
        ],
    )
    async def test_what_is_kept_of_the_answer(self, reply: EgressReply, output: tuple[Any, Any]) -> None:
        trial = Trial(workflow({"id": "a", "http": GET}))
        trial.will_answer(reply)
        assert (await trial.run()).status == "completed"
        headers, body = output
        assert trial.outputs["a"] == {"status": reply.status, "headers": headers, "body": body, "truncated": False}

    @pytest.mark.parametrize("character", ["x", "\x00", "é", "€", "\U0001f600", '"'])
    @pytest.mark.parametrize("whole", [True, False])
    def test_the_largest_answer_can_be_kept(self, character: str, whole: bool) -> None:  # noqa: FBT001
        text = character * (MOST_BODY_BYTES // len(character.encode()))
        for body, kind in ((text, "text/plain"), (json.dumps(text, ensure_ascii=False), "application/json")):
            reply = EgressReply(200, {"content-type": kind}, body.encode(), whole=whole, remote="")
            output = output_of(reply)
            assert len(json.dumps(output)) < 262_144
            assert output["truncated"] or output["body"] == text
            assert output["truncated"] or whole

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
    async def test_what_may_pass_is_tried_again(self, status: int) -> None:
        trial = Trial(workflow({"id": "a", "http": GET, "retry": {"attempts": 3, "delaysMs": [10_000]}}))
        trial.will_answer(answer(status), answer(status, Retry_After="120"), answer(200, 1))
        assert (await trial.run()).status == "completed"
        assert [error.split(":")[0] for _, error in trial.failures] == [f"HTTP_{status}"] * 2
        # The first delay has a jitter of a tenth.
        assert 129 <= trial.seconds <= 191

    @pytest.mark.parametrize("failure", [NotReached("no connection to x"), NoAnswer("x did not answer")])
    async def test_so_is_a_network_s_failure(self, failure: Exception) -> None:
        trial = Trial(workflow({"id": "a", "http": GET, "retry": {"attempts": 2}}))
        trial.will_answer(failure, failure)
        code = "NOT_REACHED" if isinstance(failure, NotReached) else "NO_ANSWER"
        assert await failed(trial) == f"{code}: step a: {failure}"
        assert len(trial.requests) == 2

    @pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 409, 410, 422])
    async def test_a_refusal_is_final(self, status: int) -> None:
        trial = Trial(workflow({"id": "a", "http": GET}))
        trial.will_answer(answer(status))
        assert (await failed(trial)).startswith(f"HTTP_{status}: step a: ")
        assert len(trial.requests) == 1

    async def test_what_is_expected_is_no_failure(self) -> None:
        steps = [{"id": "a", "http": {**GET, "expect": [404]}}, {"id": "b", "http": {**GET, "expect": [503]}}]
        trial = Trial(workflow(*steps, {"id": "c", "http": {**GET, "expect": [404]}}))
        trial.will_answer(answer(404), answer(503), answer(200))
        assert await failed(trial) == "HTTP_200: step c: the server refused"
        assert [trial.outputs[step]["status"] for step in ("a", "b")] == [404, 503]

    async def test_a_guarded_address_is_a_refusal(self) -> None:
        trial = Trial(workflow({"id": "a", "http": GET}))
        trial.will_answer(EgressRefused("the address of x is not a public one"))
        assert await failed(trial) == "EGRESS_REFUSED: step a: the address of x is not a public one"

    @pytest.mark.parametrize("value", ["a\r\nHost: evil", "a\nb", "é", "a\x00"])
    async def test_a_header_cannot_become_two(self, value: str) -> None:
        trial = Trial(workflow({"id": "a", "http": {**GET, "headers": {"X-Name": "{{ input }}"}}}), value)
        assert "EXPRESSION_FAILED: step a: http.headers.X-Name: is not one line of ASCII" in await failed(trial)
        assert trial.requests == []


class TestWait:
    @pytest.mark.parametrize(
        ("wait", "seconds"),
        [
            ({"seconds": 90}, 90),
            ({"seconds": 0}, 0),
            ({"seconds": "input.minutes * 60"}, 120),
            ({"until": "'2026-01-05T10:00:00Z'"}, 3600),
            ({"until": "'2026-01-05T10:00:00+01:00'"}, 0),
            ({"until": "'1999-01-01T00:00:00Z'"}, 0),
        ],
    )
    async def test_it_takes_that_long(self, wait: Any, seconds: float) -> None:
        trial = Trial(workflow({"wait": wait}, {"set": {"a": "1"}}), {"minutes": 2})
        assert (await trial.run()).status == "completed"
        assert seconds <= trial.seconds < seconds + 60

    @pytest.mark.parametrize(
        ("wait", "complaint"),
        [
            ({"seconds": "input.x"}, "wait.seconds: `input.x`: is no number between 0 and"),
            ({"seconds": "-1"}, "wait.seconds: `-1`: is no number between"),
            ({"seconds": "input.none"}, "wait.seconds: `input.none`: there is no field none"),
            ({"until": "input.x"}, "wait.until: `input.x`: is no time with a zone, like"),
            ({"until": "'2026-01-05T10:00:00'"}, "is no time with a zone, like 2026-01-31T10:00:00Z"),
            ({"until": "5"}, "wait.until: `5`: is empty or not a text"),
        ],
    )
    async def test_what_is_no_time(self, wait: Any, complaint: str) -> None:
        error = await failed(Trial(workflow({"wait": wait}), {"x": "Ada"}))
        assert error.startswith("EXPRESSION_FAILED: step s0: ")
        assert complaint in error
        assert "Ada" not in error


class TestWaitForEvent:
    STEP: ClassVar[dict[str, Any]] = {"id": "paid", "wait_for_event": {"event": "paid", "correlation": "input.id"}}

    @pytest.mark.parametrize(("given", "correlation"), [({"id": "o-1"}, "o-1"), ({"id": 7}, "7")])
    async def test_a_signal_that_has_come_already(self, given: Any, correlation: str) -> None:
        trial = Trial(workflow(self.STEP, output={"got": "steps.paid"}), given)
        trial.signal("paid", correlation, {"amount": 5})
        assert await trial.run() == Ended("completed", {"got": {"payload": {"amount": 5}}})

    async def test_each_signal_once(self) -> None:
        second = {**self.STEP, "id": "again"}
        trial = Trial(
            workflow(self.STEP, second, output={"got": "[steps.paid.payload, steps.again.payload]"}), {"id": 1}
        )
        trial.signal("paid", "1", "first")
        assert await trial.run() == Ended("waiting")
        trial.signal("paid", "1", "second")
        assert await trial.run() == Ended("completed", {"got": ["first", "second"]})

    async def test_a_time_out_fails(self) -> None:
        step = {"wait_for_event": {**self.STEP["wait_for_event"], "timeoutSeconds": "input.limit"}}
        trial = Trial(workflow({"id": "paid", **step}), {"id": 1, "limit": 60})
        assert await trial.run() == Ended("waiting")
        assert await trial.after(61) == Ended("failed", error="EVENT_TIMEOUT: step paid: paid did not come in time")

    @pytest.mark.parametrize("given", [{}, {"id": ""}, {"id": True}, {"id": {"a": 1}}, {"id": "x" * 300}])
    async def test_what_is_no_correlation(self, given: Any) -> None:
        error = await failed(Trial(workflow(self.STEP), given))
        assert error.startswith("EXPRESSION_FAILED: step paid: wait_for_event.correlation: `input.id`: ")


class TestCondition:
    STEPS = (
        {"id": "a", "condition": {"if": "input.x", "then": [{"id": "yes", "set": {"n": "1"}}]}},
        {"set": {"n": "steps.yes.n or 0", "branch": "steps.a.branch"}},
    )

    @pytest.mark.parametrize(("given", "branch"), [({"x": 1}, "then"), ({"x": 0}, "else"), ({}, "else")])
    async def test_what_is_missing_is_false(self, given: Any, branch: str) -> None:
        trial = Trial(workflow(*self.STEPS), given)
        await trial.run()
        assert trial.outputs["s1"] == {"n": 1 if branch == "then" else 0, "branch": branch}

    async def test_the_branch_is_remembered(self) -> None:
        document = workflow(
            {"id": "a", "condition": {"if": "input | length == 1", "then": [{"wait": {"seconds": 5}, "id": "w"}]}},
            output={"branch": "steps.a.branch"},
        )
        given = {"x": 1}
        trial = Trial(document, given)
        await trial._turn()
        given["y"] = 2
        assert await trial.run() == Ended("completed", {"branch": "then"})


class TestParallel:
    async def test_branches_wait_at_the_same_time(self) -> None:
        branches = [
            [{"id": f"w{n}", "wait": {"seconds": 10 * n}}, {"id": f"v{n}", "set": {"n": str(n)}}] for n in (1, 2)
        ]
        trial = Trial(workflow({"parallel": {"branches": branches}}, output={"n": "[steps.v1.n, steps.v2.n]"}))
        assert await trial.run() == Ended("completed", {"n": [1, 2]})
        assert 20 <= trial.seconds < 30

    async def test_what_fails_ends_all_once_the_others_have_come_as_far_as_they_can(self) -> None:
        branches = [
            [{"id": "bad", "http": GET}],
            [{"id": "good", "notify": EMAIL}, {"id": "rest", "wait": {"seconds": 99}}],
        ]
        trial = Trial(workflow({"parallel": {"branches": branches}}), ORDER)
        trial.will_answer(answer(404))
        assert await failed(trial) == "HTTP_404: step bad: the server refused"
        assert "good" in trial.outputs
        assert trial.seconds < 99


class TestCall:
    async def test_what_is_not_json_is_a_failure(self) -> None:
        async def strange(_step: StepCall) -> Any:
            return object()

        trial = Trial(workflow({"id": "a", "call": {"function": "f"}}), functions={"f": strange})
        assert (await failed(trial)).startswith("RESULT_NOT_JSON: step a")

    async def test_it_is_tried_again_with_the_same_key(self) -> None:
        calls: list[tuple[int, str, Any]] = []

        async def moody(step: StepCall, *, things: Any) -> int:
            calls.append((step.attempt, step.idempotency_key, things))
            if step.attempt < 3:
                raise RuntimeError("ada@example.org")
            return 1

        step = {"call": {"function": "f", "arguments": {"things": {"a": ["input.total", 1]}}}, "retry": {"attempts": 3}}
        trial = Trial(workflow({"id": "a", **step}), ORDER, functions={"f": moody})
        assert (await trial.run()).status == "completed"
        assert [attempt for attempt, _, _ in calls] == [1, 2, 3]
        assert {key for _, key, _ in calls} == {str(uuid5(trial.id, "a"))}
        assert calls[0][2] == {"a": [30, 1]}
        assert trial.failures == [("a", "STEP_FAILED: RuntimeError")] * 2

    async def test_one_that_is_not_there(self) -> None:
        trial = Trial(read_definition(workflow({"id": "a", "call": {"function": "f"}})))
        assert await failed(trial) == "UNKNOWN_FUNCTION: step a: this worker has no function f"


class TestWorkflow:
    STEP: ClassVar[dict[str, Any]] = {"id": "child", "workflow": {"start": "other", "input": {"n": "input.total"}}}

    async def test_its_result_is_the_output(self) -> None:
        trial = Trial(
            workflow(self.STEP, output={"x": "steps.child.n + 1"}), ORDER, workflows={"other": lambda given: given}
        )
        assert await trial.run() == Ended("completed", {"x": 31})

    async def test_its_failure_is_the_step_s(self) -> None:
        def failing(_given: Any) -> None:
            raise PermanentError("NO", "never")

        assert "CHILD_FAILED: step child: NO: never" in await failed(
            Trial(workflow(self.STEP), ORDER, workflows={"other": failing})
        )

    async def test_one_that_is_not_there(self) -> None:
        assert (await failed(Trial(workflow(self.STEP), ORDER))).startswith("UNKNOWN_WORKFLOW: ")


class TestResult:
    async def test_an_output_without_value(self) -> None:
        trial = Trial(workflow({"id": "a", "set": {"x": "1"}}, output={"a": {"b": ["steps.a.y"]}}))
        assert await failed(trial) == "EXPRESSION_FAILED: output.a.b.0: `steps.a.y`: there is no field y"

    async def test_what_steps_know_of_the_execution(self) -> None:
        trial = Trial(workflow(output={"e": "execution"}), organization_id="acme")
        ended = await trial.run()
        assert ended.result["e"] == {
            "id": str(trial.id),
            "organizationId": "acme",
            "createdAt": "2026-01-05T09:00:00+00:00",
        }

    async def test_values_that_grow_are_stopped(self) -> None:
        steps = [{"id": "a0", "set": {"t": "input.text"}}]
        steps += [{"id": f"a{n}", "set": {"t": f"steps.a{n - 1}.t ~ steps.a{n - 1}.t"}} for n in range(1, 40)]
        error = await failed(Trial(workflow(*steps), {"text": "x" * 1000}))
        assert "RESULT_TOO_LARGE" in error


class TestAnyTree:
    @given(st.lists(TREES, max_size=5), st.booleans())
    @settings(max_examples=60, deadline=None)
    async def test_it_comes_to_what_a_reading_by_hand_comes_to(self, trees: list[Any], killed_once: bool) -> None:  # noqa: FBT001
        planted = Planted(trees)
        trial = Trial(planted.document, {"one": 1}, functions={"same": same}, killed_once=killed_once)
        assert await trial.run() == Ended("completed", {"sum": planted.sum})
        assert {
            step: output["n"] for step, output in trial.outputs.items() if output and "n" in output
        } == planted.values


class TestInPython:
    async def test_one_in_python_is_tried_in_the_same_way(self) -> None:
        async def fulfil(ctx: WorkflowContext) -> Any:
            async def reserve(step: StepCall) -> str:
                return f"{step.step} {step.attempt}"

            first = await ctx.step("reserve", reserve)
            await ctx.sleep("a day", seconds=86_400)
            try:
                await ctx.run("ship", "shipping", {"order": ctx.input})
            except StepFailed as failure:
                return [first, failure.error]
            return first

        def failing(_given: Any) -> None:
            raise PermanentError("SOLD_OUT", "nothing left")

        trial = Trial(fulfil, 7, workflows={"shipping": failing}, killed_once=True)
        assert await trial.run() == Ended("completed", ["reserve 1", "CHILD_FAILED: SOLD_OUT: nothing left"])
        assert 86_400 <= trial.seconds < 86_460

    async def test_one_that_does_not_find_its_way_back_is_found_out(self) -> None:
        names = iter("abcdef")

        async def forgetful(ctx: WorkflowContext) -> None:
            async def nothing(_step: StepCall) -> None: ...

            await ctx.step(next(names), nothing)
            await ctx.sleep("rest", seconds=1)

        with pytest.raises(AssertionError, match="it did not ask again for a"):
            await Trial(forgetful).run()
