"""Which steps an expression may speak of: those that have run, or might have, when it is asked."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from worker_runtime.yaml_source import MOST_COMPLAINTS, Complaint, meant
from workflow_worker.steps.speech import expressions_in
from workflow_worker.steps.step import Steps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from worker_runtime.expressions import Expression, Text
    from worker_runtime.yaml_source import Place
    from workflow_worker.steps.speech import Values
    from workflow_worker.steps.step import StepKind

__all__ = ["wrong_references"]

# To look for what was meant takes milliseconds where there are many steps.
MOST_GUESSES = 10


def wrong_references(steps: Steps, output: Values | None, ids: Collection[str]) -> list[Complaint]:
    """Return a complaint for each step that is spoken of where it cannot have run; `ids` are all that are written."""
    # Of steps that could not be read nobody knows what they come before.
    seen = set(ids) - set(_ids(steps))
    wrong = list(islice(_within(steps, seen), MOST_COMPLAINTS))
    for place, expression in expressions_in(output, ("output",)):
        wrong += islice(_objections(place, expression, seen), MOST_COMPLAINTS - len(wrong))
    return [_complaint(place, name, ids, guess=number < MOST_GUESSES) for number, (place, name) in enumerate(wrong)]


def _ids(steps: Steps) -> Iterator[str]:
    for step in steps.all:
        yield step.id
        for _, value in _fields(step.does):
            for branch in _branches(value):
                yield from _ids(branch)


def _within(steps: Steps, seen: set[str]) -> Iterator[tuple[Place, str]]:
    """Go through steps in their order, and add to `seen` what those after them may speak of."""
    for step in steps.all:
        ended = set[str]()
        for key, value in _fields(step.does):
            for place, expression in expressions_in(value, (*step.place, step.kind, key)):
                yield from _objections(place, expression, seen)
            for branch in _branches(value):
                # Neighbours run at the same time, or instead of each other.
                inner = set(seen)
                yield from _within(branch, inner)
                ended |= inner
        seen |= ended | {step.id}


def _fields(does: StepKind) -> Iterator[tuple[str, Any]]:
    """Yield what is written under a kind's key, by the names that are used there."""
    for name, description in type(does).model_fields.items():
        yield description.alias or name, getattr(does, name)
    yield from (does.__pydantic_extra__ or {}).items()


def _branches(value: Any) -> Iterator[Steps]:
    if isinstance(value, Steps):
        yield value
    elif isinstance(value, list):
        yield from (one for one in value if isinstance(one, Steps))


def _objections(place: Place, expression: Expression | Text, seen: Collection[str]) -> Iterator[tuple[Place, str]]:
    yield from ((place, name) for name in sorted(expression.fields_of("steps") - set(seen)))


def _complaint(place: Place, name: str, ids: Collection[str], *, guess: bool) -> Complaint:
    if name in ids:
        return Complaint(place, f"step {name} has not run by then: it comes later, or in another branch")
    likely = meant(name, ids) if guess else None
    return Complaint(place, f"there is no step {name}" + (f"; did you mean {likely}?" if likely else ""))
