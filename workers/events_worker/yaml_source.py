"""YAML that people write by hand: read strictly, and every complaint says in which line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]

KINDER_WORDS = {"extra_forbidden": "unknown key", "missing": "is missing"}


class Complaint(NamedTuple):
    """What is wrong at one place of the document; `place` is the path of keys and indexes that leads there."""

    place: Place
    sentence: str


class SourceError(Exception):
    """A hand-written file cannot be used. The message has one line a complaint: `file:line: place: what is wrong`."""


class Source:
    """One parsed document and the line each of its values starts in."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `SourceError` when it cannot be read, is not YAML or repeats a key."""
        self.path = path
        self._lines: dict[Place, int] = {}
        root = self._parse()
        self.document: Any = None if root is None else _SafeValues().construct_document(root)

    def validated(self, model: type[M]) -> M:
        """Return the document as `model`; raises `SourceError` with every violation of it."""
        try:
            return model.model_validate(self.document)
        except ValidationError as error:
            raise self.error([_complaint(detail) for detail in error.errors()]) from error

    def error(self, complaints: Sequence[Complaint]) -> SourceError:
        """Write the complaints as one error, in the order of the file."""
        ordered = sorted(complaints, key=lambda complaint: self.line(complaint.place))
        return SourceError("\n".join(self._sentence(complaint) for complaint in ordered))

    def line(self, place: Place) -> int:
        """Return the line of the value at `place`, or of the nearest thing around it that exists. Counts from 1."""
        while place not in self._lines and place:
            place = place[:-1]
        return self._lines.get(place, 1)

    def _sentence(self, complaint: Complaint) -> str:
        where = ".".join(str(part) for part in complaint.place)
        return f"{self.path}:{self.line(complaint.place)}: {where + ': ' if where else ''}{complaint.sentence}"

    def _parse(self) -> yaml.Node | None:
        try:
            root = _composed(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: is not UTF-8") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise SourceError(f"{self.path}:{line}: is not YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise SourceError(f"{self.path}: is not YAML: {error}") from error
        if root is not None:
            self._note_lines(root, ())
        return root

    def _note_lines(self, node: yaml.Node, place: Place) -> None:
        self._lines[place] = node.start_mark.line + 1
        for key, line, child in _children(node):
            inner = (*place, key)
            if inner in self._lines:
                raise SourceError(f"{self.path}:{line}: {key}: is written twice")
            self._note_lines(child, inner)
            self._lines[inner] = line


def _composed(text: str) -> yaml.Node | None:
    """Parse with libyaml, in 5 ms where PyYAML's own parser takes 70; of a mistake the latter speaks better."""
    try:
        return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.compose(text, Loader=yaml.SafeLoader)


class _SafeValues(yaml.constructor.SafeConstructor):
    """PyYAML's own, without its loader: the nodes exist already."""


def _children(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield key.value, key.start_mark.line + 1, child
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield index, child.start_mark.line + 1, child


def _complaint(detail: ErrorDetails) -> Complaint:
    words = KINDER_WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return Complaint(detail["loc"], words)
