"""Which variables a settings class reads, found from its fields; the source of reading, errors and reference alike."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import annotated_types
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from worker_runtime.settings.kinds import Allowed
from worker_runtime.settings.queues import VARIABLE_OF, KnownQueue, QueueOptions, Queues, known_queues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

N = TypeVar("N")
Where = tuple[str, ...]
KINDS = {int: "a whole number", bool: "true or false", float: "a number"}


@dataclass(frozen=True)
class Variable:
    """One variable of the environment and the field it fills; `where` is the field's place in the settings."""

    name: str
    where: Where
    field: FieldInfo
    group: str

    @property
    def secret(self) -> bool:
        """Whether its value may be shown to nobody, and `<NAME>_FILE` is read as well."""
        return any(kind is SecretStr for kind in _members(self.field.annotation))

    @property
    def allowed(self) -> str:
        """What may be written, for a person."""
        if told := note(self.field, Allowed):
            return told.text
        return _kind(self.field) + _bounds(self.field)

    @property
    def default(self) -> Any:
        """The value without the variable; `None` when there is none or it is required."""
        default = self.field.get_default(call_default_factory=True, validated_data={})
        return None if default is PydanticUndefined else default


def variables_of(settings_type: type[BaseModel]) -> list[Variable]:
    """Return every variable of a settings class, in the order of its fields."""
    found: list[Variable] = []
    for name, field in settings_type.model_fields.items():
        group = _group(settings_type, name)
        if field.annotation is Queues:
            found += _queue_variables(name, group, known_queues(getattr(settings_type, "own_queues", ())))
        else:
            found.append(Variable(name.upper(), (name,), field, group))
    return found


def note(field: FieldInfo, kind: type[N]) -> N | None:
    """Return what was noted of that kind beside the field, last word first; also inside an optional type."""
    notes = [entry for entry in field.metadata if isinstance(entry, kind)]
    for member in typing.get_args(field.annotation):
        notes += [entry for entry in getattr(member, "__metadata__", ()) if isinstance(entry, kind)]
    return notes[-1] if notes else None


def _queue_variables(field_name: str, group: str, queues: Mapping[str, KnownQueue]) -> list[Variable]:
    return [
        Variable(template.format(queue=key), (field_name, key.lower(), option), _option_field(queue, option), group)
        for option, template in VARIABLE_OF.items()
        for key, queue in queues.items()
    ]


def _option_field(queue: KnownQueue, option: str) -> FieldInfo:
    field = QueueOptions.model_fields[option]
    if option not in queue.defaults:
        return field
    own = field._copy()  # noqa: SLF001  FieldInfo offers no public copy, and the default is this queue's
    own.default = queue.defaults[option]
    return own


def _group(settings_type: type[BaseModel], name: str) -> str:
    owner = next(kind for kind in reversed(settings_type.__mro__) if name in getattr(kind, "__annotations__", {}))
    return (owner.__doc__ or owner.__name__).splitlines()[0].rstrip(".")


def _members(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in _members(member)]
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return [annotation]


def _kind(field: FieldInfo) -> str:
    members = [member for member in _members(field.annotation) if member is not type(None)]
    if typing.get_origin(members[0]) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(members[0]))
    return KINDS.get(members[0], "text")


def _bounds(field: FieldInfo) -> str:
    limits = list(field.metadata)
    for member in typing.get_args(field.annotation):
        limits += [
            limit for entry in getattr(member, "__metadata__", ()) for limit in getattr(entry, "metadata", [entry])
        ]
    low = max((cast("float", limit.ge) for limit in limits if isinstance(limit, annotated_types.Ge)), default=None)
    high = min((cast("float", limit.le) for limit in limits if isinstance(limit, annotated_types.Le)), default=None)
    if low is None and high is None:
        return ""
    return f" from {low}" + (f" to {high}" if high is not None else "")
