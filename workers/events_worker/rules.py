"""Routing rules: which event becomes which notification, as people write it in YAML, read and checked at the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from events_worker.event import matches
from events_worker.expressions import Expression, ExpressionError, Text
from events_worker.yaml_source import Complaint, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHIPPED = Path(__file__).with_name("rules.yaml")
PATTERN = re.compile(r"\*|[^\s*]+\.\*|[^\s*]+")

Channel = Literal["EMAIL", "SMS", "WEBHOOK"]
Priority = Literal["LOW", "NORMAL", "HIGH", "URGENT"]
ADDRESS_FIELD: Mapping[Channel, str] = {"EMAIL": "email", "SMS": "phone", "WEBHOOK": "webhookUrl"}


class RuleFailed(Exception):
    """An event a rule applies to makes no notification. Names the rule and the expression, never the event's data."""


def _expression(source: str) -> str:
    return _compilable(Expression, source)


def _text(source: str) -> str:
    return _compilable(Text, source)


def _compilable(kind: type[Expression | Text], source: str) -> str:
    try:
        kind(source)
    except ExpressionError as error:
        raise ValueError(str(error)) from error
    return source


def _pattern(written: str) -> str:
    if not PATTERN.fullmatch(written):
        raise ValueError("is neither a type (lead.created) nor a family (lead.*) nor *")
    return written


ExpressionSource = Annotated[str, AfterValidator(_expression)]
TextSource = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, StringConstraints(min_length=1)]


class Rule(BaseModel):
    """One entry of the file. The comment at the head of rules.yaml says what each key means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    event: Annotated[str, AfterValidator(_pattern)]
    when: ExpressionSource | None = None
    channel: Channel
    priority: Priority = "NORMAL"
    recipient: dict[Literal["id", "email", "phone", "webhookUrl"], ExpressionSource]
    template: Name | None = None
    data: dict[str, ExpressionSource] = Field(default_factory=dict)
    subject: TextSource | None = None
    body: TextSource | None = None

    @model_validator(mode="after")
    def _says_something_to_somebody(self) -> Rule:
        if ADDRESS_FIELD[self.channel] not in self.recipient:
            raise ValueError(f"recipient.{ADDRESS_FIELD[self.channel]} is missing, {self.channel} needs it")
        if (self.template is None) == (self.body is None):
            raise ValueError("needs either template (with data) or body (with subject)")
        if self.body is not None and self.data:
            raise ValueError("data is for a template; a body has its expressions in the text")
        return self


class RuleFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: list[Rule]


class CompiledRule:
    """A rule ready to be applied."""

    def __init__(self, rule: Rule) -> None:
        self.name = rule.name
        self.channel = rule.channel
        self.priority = rule.priority
        self.pattern = rule.event
        self._template = rule.template
        self._when = Expression(rule.when) if rule.when else None
        self._recipient = {key: Expression(source) for key, source in rule.recipient.items()}
        self._data = {key: Expression(source) for key, source in rule.data.items()}
        texts = {"subject": rule.subject, "body": rule.body}
        self._texts = {key: Text(source) for key, source in texts.items() if source is not None}

    def applies(self, event_type: str, names: Mapping[str, Any]) -> bool:
        """Tell whether this event makes a notification; raises `RuleFailed` when the condition has no answer."""
        if not matches(self.pattern, event_type):
            return False
        return self._when is None or bool(self._asked("when", self._when.truth, names))

    def recipient(self, names: Mapping[str, Any]) -> dict[str, str]:
        """Return who gets it; raises `RuleFailed` when a field is missing or empty."""
        return {
            field: self._address(field, expression, self._asked(f"recipient.{field}", expression.value, names))
            for field, expression in self._recipient.items()
        }

    def content(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Return what it says; raises `RuleFailed` when a field is missing."""
        content: dict[str, Any] = {key: self._asked(key, text.value, names) for key, text in self._texts.items()}
        if self._template is not None:
            data = {key: self._asked(f"data.{key}", value.value, names) for key, value in self._data.items()}
            content |= {"templateId": self._template, "templateData": data}
        return content

    def _asked(self, place: str, ask: Any, names: Mapping[str, Any]) -> Any:
        try:
            return ask(names)
        except ExpressionError as error:
            raise RuleFailed(f"rule {self.name}: {place}: {error}") from error

    def _address(self, field: str, expression: Expression, value: Any) -> str:
        if isinstance(value, str) and value.strip():
            return value
        raise RuleFailed(f"rule {self.name}: recipient.{field}: `{expression.source}`: is empty or not a text")


def load_rules(path: Path, channels: frozenset[str]) -> list[CompiledRule]:
    """Read and check a rules file; `channels` are those that are switched on.

    Raises `SourceError` with every mistake and its line.
    """
    source = Source(path)
    rules = source.validated(RuleFile).rules
    if complaints := [*_repeated_names(rules), *_silent_channels(rules, channels)]:
        raise source.error(complaints)
    return [CompiledRule(rule) for rule in rules]


def _repeated_names(rules: list[Rule]) -> Iterator[Complaint]:
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.name in seen:
            yield Complaint(("rules", index, "name"), f"{rule.name} is the name of an earlier rule")
        seen.add(rule.name)


def _silent_channels(rules: list[Rule], channels: frozenset[str]) -> Iterator[Complaint]:
    for index, rule in enumerate(rules):
        if rule.channel not in channels:
            remedy = f"set ENABLE_{rule.channel}=true or remove the rule"
            yield Complaint(("rules", index, "channel"), f"{rule.channel} is switched off: {remedy}")
