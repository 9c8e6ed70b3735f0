"""A rules file: read and checked at the start, and everything that is wrong in it told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict

from events_worker.actions import ACTIONS
from events_worker.actions.action import Name  # noqa: TC001  pydantic reads annotations
from events_worker.actions.notify import Notify
from events_worker.conditions import Condition
from events_worker.rule import Rule
from worker_runtime.event_patterns import EventPattern, matches
from worker_runtime.expression_fields import compiled
from worker_runtime.yaml_source import Complaint, Source, meant, unknown_key, validate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from events_worker.actions.action import Action
    from worker_runtime.yaml_source import Place

SHIPPED = Path(__file__).with_name("rules.yaml")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decides beside the file whether its rules can work. Queues are named by their keys (`EMAIL`).

    `off` says of each queue that is switched off what to do if not removing the rule. Of event types that are not in
    `event_types` the author is warned, unless that is empty.
    """

    off: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    event_types: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rules of a file, and what its author should know, a line for each with its place."""

    rules: Sequence[Rule]
    warnings: Sequence[str]


def load_rules(path: Path, surroundings: Surroundings | None = None) -> RuleBook:
    """Read and check a rules file; raises `SourceError` with every mistake, its line and the remedy."""
    source = Source(path)
    reading = _Reading(source, surroundings or Surroundings())
    rules = [rule for place, entry in reading.entries() if (rule := reading.rule(place, entry)) is not None]
    if reading.complaints or source.repeated:
        raise source.error(reading.complaints)
    return RuleBook(rules, [source.sentence(warning) for warning in reading.warnings])


class _Head(BaseModel):
    """What every rule says, beside what it does."""

    model_config = ConfigDict(extra="ignore", frozen=True, arbitrary_types_allowed=True)

    name: Name
    event: EventPattern
    when: Annotated[Condition, compiled(Condition, "an expression")] | None = None


HEAD = tuple(_Head.model_fields)
# A rule that only notifies may say how without `notify`, as rules did when there was nothing else to do.
SHORT = tuple(Notify.model_fields)


class _Reading:
    """One pass through a file, which notes what is wrong and goes on."""

    def __init__(self, source: Source, surroundings: Surroundings) -> None:
        self.complaints: list[Complaint] = []
        self.warnings: list[Complaint] = []
        self._source = source
        self._surroundings = surroundings
        self._names: set[str] = set()

    def entries(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield every rule that can be read at all, and its place."""
        document = self._source.document
        if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
            self._complain((), "must have the key `rules` with a list of rules: lines that begin with `- `")
            return
        self._refuse_unknown((), document, ("rules",))
        for index, entry in enumerate(document["rules"]):
            if isinstance(entry, dict):
                yield ("rules", index), entry
            else:
                self._complain(("rules", index), "must be a mapping: lines of `key: value`")

    def rule(self, place: Place, entry: dict[str, Any]) -> Rule | None:
        """Return the rule, or `None` when that is already known to be wrong."""
        self._refuse_second((*place, "name"), entry.get("name"))
        head = validate(_Head, entry, place, self.complaints)
        self._refuse_unknown(place, entry, (*HEAD, *ACTIONS), SHORT)
        written = self._written(place, entry)
        actions = {key: action for key, *where in written if (action := self._action(key, *where))}
        if head is None:
            return None
        self._warn_of_strangers((*place, "event"), head.event)
        return Rule(head.name, self._source.line(place), head.event, head.when, actions)

    def _written(self, place: Place, entry: dict[str, Any]) -> list[tuple[str, Place, Any]]:
        """Return each action's key, its place and what is written there."""
        written = [(key, (*place, key), entry[key]) for key in ACTIONS if key in entry]
        short = {key: entry[key] for key in SHORT if key in entry}
        if short and "notify" in entry:
            self._complain(place, f"has {', '.join(short)} beside notify: write them under notify")
        elif short:
            written.append(("notify", place, short))
        if not written and entry.keys() <= {*HEAD}:
            self._complain(place, f"does nothing: it needs one of {', '.join(ACTIONS)}")
        return written

    def _action(self, key: str, place: Place, value: Any) -> Action | None:
        kind, written = ACTIONS[key], {} if value is None else value
        if isinstance(written, dict):
            self._look_around(kind.queue_of(written), place)
        return validate(kind, written, place, self.complaints)

    def _look_around(self, queue: str, place: Place) -> None:
        if remedy := self._surroundings.off.get(queue):
            self._complain(place, f"{queue} is switched off: {remedy} remove the rule")

    def _refuse_unknown(
        self, place: Place, entry: dict[str, Any], known: Sequence[str], also: Sequence[str] = ()
    ) -> None:
        for key in entry:
            if key not in (*known, *also):
                self._complain((*place, key), unknown_key(key, known, also))

    def _refuse_second(self, place: Place, name: object) -> None:
        if not isinstance(name, str):
            return
        if name in self._names:
            self._complain(place, f"{name} is the name of an earlier rule: ids are made of it")
        self._names.add(name)

    def _warn_of_strangers(self, place: Place, pattern: str) -> None:
        known = self._surroundings.event_types
        if known and not any(matches(pattern, event_type) for event_type in known):
            likely = meant(pattern, [*known, *(f"{event_type.partition('.')[0]}.*" for event_type in known)])
            remedy = f"; did you mean {likely}?" if likely else ""
            self.warnings.append(Complaint(place, f"{pattern} has no contract{remedy}"))

    def _complain(self, place: Place, sentence: str) -> None:
        self.complaints.append(Complaint(place, sentence))
