"""A definition is read as a whole, and everything that is wrong with it is told with its path."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from worker_runtime.yaml_source import SourceError
from workflow_documents import EMAIL, TREES, WHOLE, Planted, workflow
from workflow_worker.definition import (
    Definition,
    DefinitionError,
    Surroundings,
    load_definition,
    read_definition,
    schema,
)
from workflow_worker.steps import STEPS

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = Draft202012Validator(json.loads(schema()))
SET = {"set": {"a": "1"}}
HTTP = {"method": "GET", "url": "https://x.example/"}


async def quote(step: Any, *, amount: int) -> int:
    return amount


def refusal(document: Any, surroundings: Surroundings | None = None) -> list[str]:
    with pytest.raises(DefinitionError) as error:
        read_definition(document, surroundings)
    return str(error.value).splitlines()


class TestWhole:
    def test_it_may_start_itself_on_a_condition(self) -> None:
        again = {"id": "again", "workflow": {"start": "order-followup"}}
        assert read_definition(workflow({"condition": {"if": "input.more", "then": [again]}})).steps.all

    def test_it_is_read(self) -> None:
        definition = read_definition(WHOLE, Surroundings({"pricing.quote": quote}, workflows=()))
        assert definition.name == "order-followup"
        assert [step.id for step in definition.steps.all][:3] == ["greet", "charge", "rest"]
        charge = definition.steps.all[1]
        assert charge.retry is not None
        assert (charge.timeout_seconds, charge.retry.attempts, charge.retry.delays_seconds) == (10.0, 3, (1.0, 5.0))
        assert definition.workflow is None

    def test_it_says_which_events_start_it(self) -> None:
        trigger = read_definition(WHOLE).trigger
        assert trigger is not None
        names = {"event": {}, "metadata": {}, "payload": {"total": 101}}
        assert trigger.pattern == "order.created"
        assert trigger.wants("order.created", names)
        assert not trigger.wants("order.updated", names)
        assert not trigger.wants("order.created", {**names, "payload": {"total": 1}})

    def test_one_in_python_has_no_steps(self) -> None:
        definition = read_definition({"name": "a", "workflow": "order.fulfil", "input": {"required": ["x"]}})
        assert definition.workflow == "order.fulfil"
        assert definition.input_problem({}) == "x is missing"

    def test_the_published_schema_knows_it(self) -> None:
        Draft202012Validator.check_schema(SCHEMA.schema)
        assert not list(SCHEMA.iter_errors(WHOLE))

    @pytest.mark.parametrize(
        "wrong",
        [
            {**WHOLE, "stepps": []},
            {"name": "a"},
            {"name": "a", "steps": [], "workflow": "b"},
            workflow({**SET, "call": {"function": "f"}}),
            workflow({"sett": {}}),
            workflow({"http": {"url": "https://x.example/"}}),
            workflow({"condition": {"if": "true", "then": [{"id": "x", "wait": {"second": 1}}]}}),
        ],
    )
    def test_the_published_schema_knows_mistakes(self, wrong: Any) -> None:
        assert list(SCHEMA.iter_errors(wrong))
        assert refusal(wrong)


class TestMistakes:
    @pytest.mark.parametrize(
        ("document", "complaint"),
        [
            (5, "must be a mapping: lines of `key: value`"),
            ({"steps": []}, "name: is missing"),
            ({"name": "a b", "steps": []}, "name: must be letters, digits, `.`, `-` and `_`, 100 at most"),
            ({"name": "a"}, "needs either steps or workflow, the name of one in Python"),
            ({"name": "a", "steps": [], "workflow": "b"}, "needs either steps or workflow, the name of one in Python"),
            ({"name": "a", "workflow": "b", "output": {}}, "output: is for steps: a workflow in Python returns its "),
            ({"name": "a", "steps": {}}, "steps: must be a list of steps: lines that begin with `- `"),
            (workflow(stepps=1), "stepps: unknown key; did you mean steps?"),
            (workflow(trigger={"event": "a b"}), "trigger.event: is neither a type (lead.created) nor a family"),
            (workflow(trigger={"event": "a", "wen": "1"}), "trigger.wen: unknown key; did you mean when?"),
            (workflow(trigger={"event": "a", "when": "input.x"}), "trigger.when: `input.x`: unknown name input"),
            (workflow(output={"a": ["paylod.x"]}), "output.a.0: `paylod.x`: unknown name paylod (there are input, "),
            (workflow({"id": "1a", **SET}), "steps.0.id: must be letters, digits and `_`, 64 at most"),
            (workflow({"id": "a-b", **SET}), "steps.0.id: must be letters, digits and `_`, 64 at most"),
            ({"name": "a", "steps": [SET]}, "steps.0.id: is missing"),
            (workflow({"id": "a", **SET}, {"id": "a", **SET}), "steps.1.id: a is the id of an earlier step"),
            (workflow({}), "steps.0: does nothing: it needs one of notify, http, wait, wait_for_event, "),
            (workflow({"noitfy": EMAIL}), "steps.0.noitfy: unknown key; did you mean notify?"),
            (workflow({**SET, "wait": {"seconds": 1}}), "steps.0: does wait and set: make a step of each"),
            (workflow({**SET, "retry": {}}), "steps.0.retry: is for notify, http, call"),
            (workflow({"http": HTTP, "retry": {"attempts": 21}}), "steps.0.retry.attempts: Input should be less"),
            (workflow({"http": HTTP, "retry": {"delayMs": [1]}}), "retry.delayMs: unknown key; did you mean delaysMs?"),
            (workflow({"http": HTTP, "timeoutMs": 0}), "steps.0.timeoutMs: Input should be greater than or equal to 1"),
            (workflow({"http": HTTP, "timeoutMs": 600_001}), "steps.0.timeoutMs: Input should be less than"),
            (workflow({"http": {**HTTP, "urll": 1}}), "steps.0.http.urll: unknown key; did you mean url?"),
            (workflow({"http": {**HTTP, "method": "HEAD"}}), "steps.0.http.method: Input should be 'GET', 'POST',"),
            (workflow({"http": {**HTTP, "url": 5}}), "steps.0.http.url: must be a text: put it in quotes"),
            (workflow({"http": {**HTTP, "url": "ftp://x"}}), "steps.0.http: url: the URL is not one with https"),
            (
                workflow({"http": {**HTTP, "url": "https://{{ input.x"}}),
                "steps.0.http.url: `https://{{ input.x`: unexp",
            ),
            (workflow({"http": {**HTTP, "json": {}}}), "steps.0.http: json is not for GET"),
            (workflow({"http": {**HTTP, "json": {"a": [{"b": "x y"}]}}}), "steps.0.http.json.a.0.b: `x y`: "),
            (
                workflow({"http": {**HTTP, "method": "PUT", "json": {}, "body": "x"}}),
                "steps.0.http: has both json and body: a request has one of them",
            ),
            (workflow({"http": {**HTTP, "headers": {"A b": "x"}}}), "http: headers.A b: is no name of a header"),
            (workflow({"http": {**HTTP, "headers": {"Host": "x"}}}), "http: headers.Host: is set by the worker"),
            (workflow({"http": {**HTTP, "expect": [99]}}), "steps.0.http.expect.0: Input should be greater"),
            (workflow({"notify": {**EMAIL, "recipient": {}}}), "steps.0.notify: recipient.email is missing, EMAIL"),
            (workflow({"notify": {**EMAIL, "channel": "FAX"}}), "steps.0.notify.channel: Input should be 'EMAIL'"),
            (workflow({"wait": {}}), "steps.0.wait: needs either seconds or until"),
            (workflow({"wait": {"seconds": -1}}), "steps.0.wait: must be between 0 and 315360000 seconds"),
            (
                workflow({"wait": {"seconds": True}}),
                "steps.0.wait.seconds: must be a number, or an expression in quote",
            ),
            (workflow({"wait": {"seconds": 1e300}}), "steps.0.wait: must be between 0 and"),
            (workflow({"wait_for_event": {"event": "a"}}), "steps.0.wait_for_event.correlation: is missing"),
            (
                workflow({"wait_for_event": {"event": "a", "correlation": "1", "onTimeout": "fail"}}),
                "steps.0.wait_for_event: onTimeout needs timeoutSeconds",
            ),
            (workflow({"condition": {"if": "true"}}), "steps.0.condition.then: is missing"),
            (workflow({"condition": {"if": "tru", "then": []}}), "steps.0.condition.if: `tru`: unknown name tru"),
            (
                workflow({"condition": {"if": "true", "then": [{"id": "x", "cal": {}}]}}),
                "steps.0.condition.then.0.cal: unknown key; did you mean call?",
            ),
            (workflow({"parallel": {"branches": []}}), "steps.0.parallel.branches: List should have at least 1 item"),
            (workflow({"parallel": {"branches": [5]}}), "steps.0.parallel.branches.0: must be a list of steps"),
            (workflow({"call": {"function": "f", "arguments": {"a b": "1"}}}), "a b is no name of an argument in"),
            (workflow({"call": {"function": ""}}), "steps.0.call.function: is empty"),
            (workflow({"workflow": {"begin": "x"}}), "steps.0.workflow.start: is missing"),
            (
                workflow({"workflow": {"start": workflow()["name"]}}),
                "steps.0.workflow.start: order-followup would start itself without end: put it into a condition",
            ),
            (workflow({"set": {"a": "x("}}), "steps.0.set.a: `x(`: unexpected"),
            (workflow({"set": ["a"]}), "steps.0.set: must be a mapping: lines of `key: value`"),
            (workflow({"set": {"a": float("nan")}}), "steps.0.set.a: is a number that JSON has not"),
            (workflow({"set": {1: "a"}}), "steps.0.set.1: is no text"),
        ],
    )
    def test_a_mistake_is_told_with_its_path(self, document: Any, complaint: str) -> None:
        told = refusal(document)
        assert any(complaint in line for line in told), told

    def test_everything_is_told_at_once(self) -> None:
        document = workflow(
            {"id": "a", "http": {"method": "GET", "url": "x", "jsn": 1}},
            {"id": "a", "set": {"x": "inptu.q"}},
            {"condition": {"if": "steps.later.x", "then": [{"id": "inner", "noify": {}}, 5]}},
            {"id": "later", "set": {"x": "steps.laetr.x"}},
            otput=1,
            input={"type": "objekt"},
        )
        assert refusal(document) == [
            "otput: unknown key; did you mean output?",
            "input.type: must be one of array, boolean, integer, null, number, object, string, or a list of these",
            "steps.0.http.jsn: unknown key; did you mean json?",
            "steps.1.id: a is the id of an earlier step: there may be one of that id",
            "steps.1.set.x: `inptu.q`: unknown name inptu (there are input, steps, execution)",
            "steps.2.condition.then.0.noify: unknown key; did you mean notify?",
            "steps.2.condition.then.1: must be a mapping: lines of `key: value`",
            "steps.2.condition.if: step later has not run by then: it comes later, or in another branch",
            "steps.3.set.x: there is no step laetr; did you mean later?",
        ]

    def test_a_file_tells_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "w.yaml"
        path.write_text(
            "name: a\nsteps:\n  - id: a\n    http:\n      method: GET\n      url: 5\n  - id: b\n    set: {x: steps.c}\n"
            "name: b\n"
        )
        with pytest.raises(SourceError) as error:
            load_definition(path)
        assert str(error.value).splitlines() == [
            f"{path}:6: steps.0.http.url: must be a text: put it in quotes",
            f"{path}:8: steps.1.set.x: there is no step c",
            f"{path}:9: name: is written twice",
        ]
        path.write_text("name: a\nsteps: []\nname: b\n")
        with pytest.raises(SourceError, match=":3: name: is written twice"):
            load_definition(path)

    def test_a_date_of_yaml_is_no_json(self) -> None:
        document = yaml.safe_load("name: a\nsteps: [{id: a, set: {day: 2026-01-31}}]")
        assert refusal(document) == ["steps.0.set.day: is a date, which JSON has not: put it in quotes"]


class TestReferences:
    @pytest.mark.parametrize(
        ("steps", "place"),
        [
            ([{"id": "a", "set": {"x": "steps.a.x"}}], "steps.0.set.x"),
            ([{"id": "a", "set": {"x": "steps['b'].x"}}, {"id": "b", **SET}], "steps.0.set.x"),
            (
                [
                    {
                        "condition": {
                            "if": "true",
                            "then": [{"id": "a", **SET}],
                            "else": [{"id": "b", "set": {"x": "steps.a"}}],
                        }
                    }
                ],
                "steps.0.condition.else.0.set.x",
            ),
            (
                [{"parallel": {"branches": [[{"id": "a", **SET}], [{"id": "b", "wait": {"until": "steps.a"}}]]}}],
                "steps.0.parallel.branches.1.0.wait.until",
            ),
            (
                [{"id": "a", "condition": {"if": "true", "then": [{"id": "b", "set": {"x": {"y": ["steps.a"]}}}]}}],
                "steps.0.condition.then.0.set.x.y.0",
            ),
            (
                [{"http": {"method": "PUT", "url": "https://x.example/{{ steps.b }}"}}, {"id": "b", **SET}],
                "steps.0.http.url",
            ),
        ],
    )
    def test_a_step_that_cannot_have_run_is_not_spoken_of(self, steps: list[Any], place: str) -> None:
        (line,) = refusal(workflow(*steps))
        assert line.startswith(f"{place}: step ")
        assert line.endswith("has not run by then: it comes later, or in another branch")

    def test_what_may_have_run_is(self) -> None:
        inner = [{"id": "b", "set": {"x": "steps.a.a"}}]
        steps = [
            {"id": "a", **SET},
            {"id": "c", "condition": {"if": "steps.a", "then": inner}},
            {"id": "d", "parallel": {"branches": [[{"id": "e", **SET}], [{"id": "f", **SET}]]}},
            {"id": "g", "set": {"x": "steps.b.x or steps.c.branch or steps.e.a + steps.f.a", "all": "steps | length"}},
        ]
        read_definition(workflow(*steps, output={"x": "steps.g.x or steps.b.x"}))

    def test_a_step_that_could_not_be_read_makes_no_second_mistake(self) -> None:
        assert len(refusal(workflow({"id": "a", "set": {"x": "y("}}, {"id": "b", "set": {"x": "steps.a.x"}}))) == 1


class TestSurroundings:
    AROUND = Surroundings({"pricing.quote": quote}, ["order.fulfil"], {"SMS": "buy a phone, or"})

    @pytest.mark.parametrize(
        ("document", "complaint"),
        [
            (
                workflow({"call": {"function": "pricing.qoute"}}),
                "steps.0.call.function: there is no function pricing.qoute; did you mean pricing.quote?",
            ),
            (
                workflow({"call": {"function": "pricing.quote", "arguments": {"price": "1"}}}),
                "steps.0.call.arguments: do not fit pricing.quote: missing a required argument: 'amount'",
            ),
            ({"name": "a", "workflow": "order.fulfill"}, "workflow: there is no workflow order.fulfill; did you mean "),
            (
                workflow({"notify": {"channel": "SMS", "recipient": {"phone": "input.x"}, "body": "x"}}),
                "steps.0.notify.channel: SMS is switched off: buy a phone, or change it",
            ),
        ],
    )
    def test_what_is_not_there_is_refused(self, document: Any, complaint: str) -> None:
        (line,) = refusal(document, self.AROUND)
        assert line.startswith(complaint)
        read_definition(document)


class TestLimits:
    def test_steps_are_counted_wherever_they_are(self) -> None:
        many = [{"id": f"s{number}", "wait": {"seconds": 1}} for number in range(500)]
        read_definition({"name": "a", "steps": many})
        inner = {"id": "c", "condition": {"if": "true", "then": many[:300], "else": many[300:]}}
        (line,) = refusal({"name": "a", "steps": [inner]})
        assert line == "steps.0.condition.else.199: is one step too many: there may be 500"

    def test_they_are_nested_twenty_deep(self) -> None:
        def nested(levels: int) -> list[Any]:
            then = nested(levels - 1) if levels > 1 else []
            return [{"id": f"d{levels}", "condition": {"if": "true", "then": then}}]

        read_definition({"name": "a", "steps": nested(19)})
        (line,) = refusal({"name": "a", "steps": nested(20)})
        assert line.endswith("is nested deeper than 20 steps in one another")

    @pytest.mark.parametrize(
        ("written", "complaint"),
        [
            ({"a": "'" + "x" * 270_000 + "'"}, "has more than 262144 bytes"),
            ({f"k{number}": "1" for number in range(3_000)}, "has more than 3000 texts"),
            ({"a": "'" + "x" * 6_000 + "'"}, "has more than 5000 characters"),
        ],
    )
    def test_it_is_no_burden(self, written: Any, complaint: str) -> None:
        (line,) = refusal(workflow({"set": written}))
        assert complaint in line

    def test_values_are_not_nested_without_end(self) -> None:
        written: Any = 1
        for _ in range(5_000):
            written = [written]
        (line,) = refusal(workflow({"set": {"a": written}}))
        assert line.endswith("is nested too deeply")


class TestInput:
    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ({"orderId": "o-1", "total": 5}, None),
            ({"orderId": "o-1", "total": 5, "more": 1}, None),
            ({}, "orderId is missing; total is missing"),
            ({"orderId": "Ada Lovelace", "total": 5}, "orderId must match ^[a-z0-9-]+$"),
            ({"orderId": "o-1", "total": -5}, "total must be at least 0"),
            ({"orderId": "o-1", "total": "5"}, "total must be a whole number"),
            (5, "the input must be an object"),
        ],
    )
    def test_what_is_wrong_is_told_without_data(self, value: Any, problem: str | None) -> None:
        assert read_definition(WHOLE).input_problem(value) == problem

    def test_without_a_schema_anything_will_do(self) -> None:
        assert read_definition(workflow()).input_problem(5) is None

    @pytest.mark.parametrize(
        ("schema", "complaint"),
        [
            (5, "input: must be a JSON Schema: a mapping"),
            ({"type": "objekt"}, "input.type: must be one of array, boolean, integer, null, number"),
            ({"properties": {"a": {"minimum": "x"}}}, "input.properties.a.minimum: 'x' is not of type 'number'"),
            ({"$ref": "https://evil.example/x"}, "input.$ref: refers to another document: nothing is fetched"),
            ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "input.properties.a.$ref: refers to another"),
            ({"$ref": "#/$defs/a"}, "input.$ref: refers to #/$defs/a, which is not here"),
            ({"$schema": "http://json-schema.org/draft-07/schema#"}, "input.$schema: must be https://json-schema.org"),
            ({"$id": "https://x.example/"}, "input.$id: is not supported"),
            ({"patternProperties": {"a": {}}}, "input.patternProperties: is not supported"),
            (
                {"properties": {"a": {"pattern": "(?=a)"}}},
                "input.properties.a.pattern: is no regular expression of RE2",
            ),
            ({"pattern": "a" * 2_000}, "input.pattern: has more than 1000 characters"),
            ({"description": "a" * 20_000}, "input: has more than 16384 characters"),
        ],
    )
    def test_a_schema_that_cannot_be_used(self, schema: Any, complaint: str) -> None:
        told = refusal(workflow(input=schema))
        assert any(line.startswith(complaint) for line in told), told

    def test_a_property_may_have_the_name_of_a_word(self) -> None:
        names = {"$id": {"type": "string"}, "patternProperties": {"type": "integer"}}
        definition = read_definition(workflow(input={"properties": names}))
        assert definition.input_problem({"$id": 5}) == "$id must be a string"

    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"$ref": "#"}, {}),
            (
                {
                    "$ref": "#/$defs/a0",
                    "$defs": {
                        **{f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)},
                        "a30": {"type": "string"},
                    },
                },
                {},
            ),
            ({"items": {"enum": [[number] for number in range(900)]}}, [[1]] * 20_000),
            ({"allOf": [{"type": "null"}] * 500}, ["x" * 1_000] * 1_000),
        ],
    )
    def test_work_without_end_is_refused(self, schema: Any, value: Any) -> None:
        definition = read_definition(workflow(input=schema))
        assert definition.input_problem(value) == "the input takes too much work to check against its schema"

    def test_a_pattern_takes_no_longer_than_the_text(self) -> None:
        definition = read_definition(workflow(input={"properties": {"a": {"pattern": "^(a+)+$"}}}))
        assert definition.input_problem({"a": "a" * 100_000 + "b"}) == "a must match ^(a+)+$"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


class TestAnything:
    @given(st.lists(TREES, max_size=5))
    @settings(max_examples=60, deadline=None)
    def test_what_is_right_is_right_as_json_as_yaml_and_for_editors(self, trees: list[Any]) -> None:
        document = Planted(trees).document
        for read in (document, json.loads(json.dumps(document)), yaml.safe_load(yaml.safe_dump(document))):
            assert isinstance(read_definition(read), Definition)
        assert not list(SCHEMA.iter_errors(document))

    @given(JSON, st.sampled_from(list(STEPS)), JSON)
    @settings(max_examples=150, deadline=None)
    def test_what_is_wrong_is_told(self, document: Any, kind: str, written: Any) -> None:
        for one in (document, workflow({kind: written}), workflow(input=document), workflow(trigger=document)):
            self.read_or_refuse(one)

    @given(st.data())
    @settings(max_examples=100, deadline=None)
    def test_any_part_may_be_wrong(self, data: st.DataObject) -> None:
        document = copy.deepcopy(WHOLE)
        part: Any = document
        while isinstance(part, (dict, list)) and part:
            key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
            if data.draw(st.booleans()) or not isinstance(part[key], (dict, list)):
                part[key] = data.draw(JSON)
                break
            part = part[key]
        self.read_or_refuse(document)

    def read_or_refuse(self, document: Any) -> None:
        try:
            read_definition(document)
        except DefinitionError as error:
            complaints = error.complaints
        else:
            return
        assert complaints
        assert all(complaint.sentence for complaint in complaints)
