"""What every kind of step is, what it may ask, and how steps run one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, PlainValidator, StringConstraints, WithJsonSchema

from worker_runtime.expressions import ExpressionError
from worker_runtime.outcome import PermanentError
from workflow_worker.steps.speech import Expression, ExpressionField, NumberField, TextField, Values, ValuesField

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from worker_runtime import expressions
    from worker_runtime.bullmq.producer import NewJob
    from worker_runtime.egress.calls import Asking
    from worker_runtime.yaml_source import Place
    from workflow_worker.context import StepCall, WorkflowContext
    from workflow_worker.execution import StepRetry
__all__ = [
    "Expression",
    "ExpressionField",
    "Name",
    "NumberField",
    "Occasion",
    "Scene",
    "Services",
    "Step",
    "StepKind",
    "Steps",
    "StepsField",
    "TextField",
    "ValuesField",
]

LONGEST_NAME = 200
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


class Adding(Protocol):
    """What a step needs of a queue: `worker_runtime.bullmq.producer.JobQueue` is one."""

    async def add(self, job: NewJob, /) -> str:
        """Add a job; adding the same id again adds nothing. Raises `RedisUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What steps reach outside of their execution.

    `queue` returns the queue with that key (`EMAIL`), `functions` are those that `call` knows. `off` says of each
    channel that is switched off what to do about it.
    """

    queue: Callable[[str], Adding]
    http: Asking
    functions: Mapping[str, Callable[..., Awaitable[Any]]]
    off: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Scene:
    """One execution of a definition: what its steps have in common. `outputs` are those of steps that have run."""

    rule: str
    context: WorkflowContext
    services: Services
    outputs: dict[str, Any]

    @property
    def names(self) -> dict[str, Any]:
        """What expressions speak of."""
        context = self.context
        execution = {
            "id": str(context.execution_id),
            "organizationId": context.organization_id,
            "createdAt": context.created_at.isoformat(),
        }
        return {"input": context.input, "steps": self.outputs, "execution": execution}

    @property
    def correlation_id(self) -> str:
        """What ties its effects to what caused it: of an event its own, else the execution."""
        given = self.context.input
        metadata = given.get("metadata") if isinstance(given, dict) else None
        correlation = metadata.get("correlationId") if isinstance(metadata, dict) else None
        return correlation if isinstance(correlation, str) and correlation else str(self.context.execution_id)

    def branch(self) -> Scene:
        """Return the scene of a branch, whose outputs the others do not see."""
        return replace(self, outputs=dict(self.outputs))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a definition, and its place there. Its kind decides where `retry` or a time limit is `None`."""

    id: str
    kind: str
    does: StepKind
    place: Place = ()
    retry: StepRetry | None = None
    timeout_seconds: float | None = None


class Steps:
    """Steps that run one after the other."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.all = tuple(steps)

    async def run(self, scene: Scene) -> None:
        """Run what has not run yet, and note each output."""
        for step in self.all:
            scene.outputs[step.id] = await step.does.run(Occasion(step, scene))


@dataclass(frozen=True, slots=True)
class Occasion:
    """One step of one execution: everything its kind may ask. Its methods raise `PermanentError`."""

    step: Step
    scene: Scene

    @property
    def context(self) -> WorkflowContext:
        """The execution's."""
        return self.scene.context

    def value(self, place: str, expression: expressions.Expression | expressions.Text, /) -> Any:
        """Return the value, which is JSON; a field it needs must be there."""
        try:
            return expression.value(self.scene.names)
        except ExpressionError as error:
            raise self.failure(place, str(error)) from error

    def text(self, place: str, expression: expressions.Expression, /) -> str:
        """Return the value, which must be a text that says something."""
        value = self.value(place, expression)
        if isinstance(value, str) and value.strip():
            return value
        raise self.failure(place, f"`{expression.source}`: is empty or not a text")

    def truth(self, place: str, expression: Expression) -> bool:
        """Return whether a condition holds."""
        try:
            return expression.truth(self.scene.names)
        except ExpressionError as error:
            raise self.failure(place, str(error)) from error

    def values(self, place: str, values: Values) -> Any:
        """Return JSON with the value of every expression in it."""
        return values.value(lambda within, one: self.value(".".join(map(str, (place, *within))), one))

    def failure(self, place: str, sentence: str) -> PermanentError:
        """Return the error that names this step and the place in it."""
        return PermanentError("EXPRESSION_FAILED", f"step {self.step.id}: {self.step.kind}.{place}: {sentence}")

    async def effect(self, function: Callable[[StepCall], Awaitable[Any]], timeout_seconds: float) -> Any:
        """Do something once, with the step's retries and a time limit."""
        step, limit = self.step, timeout_seconds
        return await self.context.step(step.id, function, kind=step.kind, retry=step.retry, timeout_seconds=limit)

    def seconds(self, usual: float) -> float:
        """Return the step's time limit, or the usual one where it has none."""
        return self.step.timeout_seconds or usual


class StepKind(BaseModel, ABC):
    """What a person writes under a kind's key, and what it does. A new kind is a file here and a line in `STEPS`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    # Whether it has an effect that may fail: `retry` and `timeoutMs` are for these.
    is_tried: ClassVar[bool] = False

    @classmethod
    def places_of_steps(cls, written: Mapping[str, Any], /) -> Iterator[Place]:  # noqa: ARG003  those of most kinds are none
        """Yield where in what is written, right or wrong as it may be, there are lists of steps."""
        yield from ()

    @abstractmethod
    async def run(self, occasion: Occasion) -> Any:
        """Do it, or return what it came to when it was done; each turn asks again. Raises what the context raises."""


def _are_steps(read: object) -> Steps:
    if isinstance(read, Steps):
        return read
    raise ValueError("must be a list of steps: lines that begin with `- `")


# pydantic leaves alone what leads elsewhere.
STEP_REFERENCE = "https://intelliflow.invalid/step"
StepsField = Annotated[
    Steps, PlainValidator(_are_steps), WithJsonSchema({"type": "array", "items": {"$ref": STEP_REFERENCE}})
]
