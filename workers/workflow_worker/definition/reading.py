"""A definition's document: read and checked as a whole, and everything that is wrong with it told at once."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from worker_runtime.allowance import MOST_INTEGER_BITS
from worker_runtime.event_patterns import EventPattern  # noqa: TC001  pydantic reads annotations
from worker_runtime.expression_fields import compiled
from worker_runtime.expressions import Expression
from worker_runtime.yaml_source import MOST_COMPLAINTS, Complaint, Source, meant, unknown_key, validate
from workflow_worker.definition.definition import EVENT_NAMES, Definition, Trigger
from workflow_worker.definition.input_schema import InputSchema
from workflow_worker.definition.problems import DefinitionError
from workflow_worker.definition.references import wrong_references
from workflow_worker.execution import StepRetry
from workflow_worker.steps import STEPS
from workflow_worker.steps.call import Call
from workflow_worker.steps.notify import Notify
from workflow_worker.steps.step import Name, Step, Steps, ValuesField
from workflow_worker.steps.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from worker_runtime.yaml_source import Place
    from workflow_worker.steps.step import StepKind

__all__ = ["Surroundings", "load_definition", "read_definition"]

MOST_BYTES = 262_144
MOST_STEPS = 500
# Each may be an expression, which takes most of a millisecond to compile.
MOST_TEXTS = 3_000
DEEPEST_STEPS = 20
DEEPEST_VALUES = 100
RULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
STEP_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decides beside the document whether it can work; `None` is what is not known here.

    `functions` are those that `call` may name, by their names, and `workflows` those in Python. `off` says of each
    channel that is switched off what to do if not changing the definition.
    """

    functions: Mapping[str, Callable[..., Any]] | None = None
    workflows: Collection[str] | None = None
    off: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def read_definition(document: Any, surroundings: Surroundings | None = None) -> Definition:
    """Read and check what JSON or YAML came to; raises `DefinitionError` with every mistake and its path."""
    reading = _Reading(surroundings or Surroundings())
    definition = reading.definition(document)
    if definition is None or reading.complaints:
        raise DefinitionError(reading.complaints)
    return definition


def load_definition(path: Path, surroundings: Surroundings | None = None) -> tuple[Any, Definition]:
    """Read a file of YAML, or JSON; return the document, which is JSON, and the definition that it is.

    Raises `SourceError` with every mistake and its line.
    """
    source = Source(path)
    try:
        definition = read_definition(source.document, surroundings)
    except DefinitionError as error:
        raise source.error(error.complaints) from error
    if source.repeated:
        raise source.error(())
    return source.document, definition


def _rule_name(name: str) -> str:
    if not RULE_NAME.fullmatch(name):
        raise ValueError("must be letters, digits, `.`, `-` and `_`, 100 at most")
    return name


def _step_id(name: str) -> str:
    if not STEP_ID.fullmatch(name):
        raise ValueError("must be letters, digits and `_`, 64 at most: expressions call it steps.<id>")
    return name


class TriggerFields(BaseModel):
    """Which events start it; their executions' input is `{event, payload, metadata}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    event: EventPattern
    when: (
        Annotated[
            Expression,
            compiled(lambda source: Expression(source, EVENT_NAMES), "an expression"),
            WithJsonSchema({"type": "string", "description": "an expression over event, payload and metadata"}),
        ]
        | None
    ) = None


class Head(BaseModel):
    """What a definition says, beside its steps."""

    model_config = ConfigDict(extra="ignore", frozen=True, arbitrary_types_allowed=True)

    name: Annotated[str, AfterValidator(_rule_name)]
    input: (
        Annotated[
            InputSchema, PlainValidator(InputSchema), WithJsonSchema({"type": "object", "description": "a JSON Schema"})
        ]
        | None
    ) = None
    workflow: Name | None = None
    output: ValuesField | None = None


class RetryFields(BaseModel):
    """How often a step is tried in all, and the milliseconds before each further try; the last repeats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: Annotated[int, Field(ge=1, le=20)] = StepRetry().attempts
    delaysMs: Annotated[  # noqa: N815 - as it is written
        list[Annotated[int, Field(ge=0, le=86_400_000)]], Field(min_length=1, max_length=19)
    ] = [int(1_000 * seconds) for seconds in StepRetry().delays_seconds]

    def retry(self) -> StepRetry:
        """Return it as the engine has it."""
        return StepRetry(self.attempts, tuple(delay / 1_000 for delay in self.delaysMs))


class StepHead(BaseModel):
    """What every step says, beside what it does."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, AfterValidator(_step_id)]
    timeoutMs: Annotated[int, Field(ge=1, le=600_000)] | None = None  # noqa: N815 - as it is written


DOCUMENT_KEYS = ("name", "trigger", "input", "steps", "workflow", "output")
STEP_KEYS = ("id", "retry", "timeoutMs")


class _Reading:
    """One pass through a document, which notes what is wrong and goes on."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.complaints: list[Complaint] = []
        self._surroundings = surroundings
        self._ids: set[str] = set()
        self._name: Any = None
        self._count = 0

    def definition(self, document: Any) -> Definition | None:
        """Return the definition, or `None` when it is already known to be wrong."""
        if not self._can_be_gone_through(document):
            return None
        self._refuse_unknown((), document, DOCUMENT_KEYS)
        head = validate(Head, document, (), self.complaints)
        self._refuse_both(document)
        self._name = document.get("name")
        steps = self._steps(("steps",), document["steps"], 1) if document.get("steps") is not None else Steps()
        trigger, output = self._trigger(document.get("trigger")), head.output if head else None
        self.complaints += wrong_references(steps, output, self._ids)
        if head is None:
            return None
        return Definition(head.name, trigger, head.input, head.workflow, steps, head.output)

    def _trigger(self, written: Any) -> Trigger | None:
        fields = None if written is None else validate(TriggerFields, written, ("trigger",), self.complaints)
        return Trigger(fields.event, fields.when) if fields else None

    def _can_be_gone_through(self, document: Any) -> bool:
        if not isinstance(document, dict):
            self._complain((), "must be a mapping: lines of `key: value`")
        else:
            self.complaints += _not_json(document, ())
            if not self.complaints and len(json.dumps(document)) > MOST_BYTES:
                self._complain((), f"has more than {MOST_BYTES} bytes")
            if not self.complaints and _texts(document) > MOST_TEXTS:
                self._complain((), f"has more than {MOST_TEXTS} texts")
        return not self.complaints

    def _refuse_both(self, document: Mapping[str, Any]) -> None:
        given = [key for key in ("steps", "workflow") if document.get(key) is not None]
        if len(given) != 1:
            self._complain((), "needs either steps or workflow, the name of one in Python")
        elif given == ["workflow"]:
            if document.get("output") is not None:
                self._complain(("output",), "is for steps: a workflow in Python returns its result")
            self._refuse_stranger(("workflow",), document["workflow"], self._surroundings.workflows, "workflow")

    def _steps(self, place: Place, written: Any, depth: int) -> Steps:
        if not isinstance(written, list):
            self._complain(place, "must be a list of steps: lines that begin with `- `")
        elif depth > DEEPEST_STEPS:
            self._complain(place, f"is nested deeper than {DEEPEST_STEPS} steps in one another")
        else:
            steps = [self._step((*place, index), entry, depth) for index, entry in enumerate(written)]
            return Steps([step for step in steps if step is not None])
        return Steps()

    def _step(self, place: Place, entry: Any, depth: int) -> Step | None:
        self._count += 1
        if self._count == MOST_STEPS + 1:
            self._complain(place, f"is one step too many: there may be {MOST_STEPS}")
        if self._count > MOST_STEPS:
            return None
        if not isinstance(entry, dict):
            self._complain(place, "must be a mapping: lines of `key: value`")
            return None
        self._refuse_unknown(place, entry, (*STEP_KEYS, *STEPS))
        head = validate(StepHead, entry, place, self.complaints)
        if head is not None:
            self._refuse_second((*place, "id"), head.id)
        kind = self._kind(place, entry)
        if kind is None:
            return None
        retry = self._retry(place, entry, STEPS[kind])
        does = self._what(kind, (*place, kind), entry[kind], depth)
        if head is None or does is None:
            return None
        seconds = None if head.timeoutMs is None else head.timeoutMs / 1_000
        return Step(head.id, kind, does, place, retry, seconds)

    def _kind(self, place: Place, entry: Mapping[str, Any]) -> str | None:
        kinds = [key for key in STEPS if key in entry]
        if len(kinds) == 1:
            return kinds[0]
        if kinds:
            self._complain(place, f"does {' and '.join(kinds)}: make a step of each")
        elif entry.keys() <= {*STEP_KEYS}:
            self._complain(place, f"does nothing: it needs one of {', '.join(STEPS)}")
        return None

    def _retry(self, place: Place, entry: Mapping[str, Any], kind: type[StepKind]) -> StepRetry | None:
        if not kind.is_tried:
            tried = ", ".join(key for key, one in STEPS.items() if one.is_tried)
            for key in ("retry", "timeoutMs"):
                if entry.get(key) is not None:
                    self._complain((*place, key), f"is for {tried}")
        if entry.get("retry") is None:
            return None
        fields = validate(RetryFields, entry["retry"], (*place, "retry"), self.complaints)
        return fields.retry() if fields else None

    def _what(self, key: str, place: Place, written: Any, depth: int) -> StepKind | None:
        kind, given = STEPS[key], written
        if isinstance(written, dict):
            given = written
            for within in kind.places_of_steps(written):
                steps = self._steps((*place, *within), _at(written, within), depth + 1)
                given = _with(given, within, steps)
        does = validate(kind, given, place, self.complaints)
        if isinstance(does, Notify) and (remedy := self._surroundings.off.get(does.channel)):
            self._complain((*place, "channel"), f"{does.channel} is switched off: {remedy} change it")
        if isinstance(does, Call):
            self._look_at_call(place, does)
        if isinstance(does, Workflow) and does.start == self._name and "condition" not in place:
            self._complain((*place, "start"), f"{does.start} would start itself without end: put it into a condition")
        return does

    def _look_at_call(self, place: Place, call: Call) -> None:
        functions = self._surroundings.functions
        self._refuse_stranger((*place, "function"), call.function, functions, "function")
        if functions and (function := functions.get(call.function)):
            try:
                inspect.signature(function).bind(None, **dict.fromkeys(call.arguments))
            except TypeError as error:
                self._complain((*place, "arguments"), f"do not fit {call.function}: {error}")

    def _refuse_stranger(self, place: Place, name: Any, known: Collection[str] | None, noun: str) -> None:
        if known is None or name in known or not isinstance(name, str):
            return
        likely = meant(name, known)
        self._complain(place, f"there is no {noun} {name}" + (f"; did you mean {likely}?" if likely else " in Python"))

    def _refuse_unknown(self, place: Place, entry: Mapping[str, Any], known: tuple[str, ...]) -> None:
        unknown = [key for key in entry if key not in known][:MOST_COMPLAINTS]
        self.complaints += [Complaint((*place, key), unknown_key(str(key), known)) for key in unknown]

    def _refuse_second(self, place: Place, name: str) -> None:
        if name in self._ids:
            self._complain(place, f"{name} is the id of an earlier step: there may be one of that id")
        self._ids.add(name)

    def _complain(self, place: Place, sentence: str) -> None:
        self.complaints.append(Complaint(place, sentence))


def _not_json(value: Any, place: Place) -> list[Complaint]:
    """Return where the document holds what JSON has not: a date that YAML has read, say."""
    if len(place) > DEEPEST_VALUES:
        return [Complaint(place, "is nested too deeply")]
    if isinstance(value, dict):
        strange = [Complaint((*place, str(key)), "is no text") for key in value if not isinstance(key, str)]
        return strange + [one for key, inner in value.items() for one in _not_json(inner, (*place, str(key)))]
    if isinstance(value, list):
        return [one for index, inner in enumerate(value) for one in _not_json(inner, (*place, index))]
    if isinstance(value, float) and value - value != 0:
        return [Complaint(place, "is a number that JSON has not")]
    if isinstance(value, int) and value.bit_length() > MOST_INTEGER_BITS:
        return [Complaint(place, "is a number of too many digits")]
    known = value is None or isinstance(value, (str, int, float))
    return [] if known else [Complaint(place, f"is a {type(value).__name__}, which JSON has not: put it in quotes")]


def _texts(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_texts, inner)) + isinstance(value, str)


def _at(written: Any, place: Place) -> Any:
    return _at(written[place[0]], place[1:]) if place else written


def _with(written: Any, place: Place, steps: Steps) -> Any:
    """Return what is written with the steps that were read in their place."""
    if not place:
        return steps
    changed = written.copy()
    changed[place[0]] = _with(written[place[0]], place[1:], steps)
    return changed
