"""YAML that people write by hand: read strictly, and every complaint says in which line and what to do."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]

# An alias costs four characters and may stand for everything before it: what it stands for is what is counted.
MOST_VALUES = 100_000
MOST_BYTES = 4_194_304
MOST_COMPLAINTS = 100
DEEPEST = 100
SIMILAR = 0.6
PLAIN_TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# YAML has numbers like 1:59:59, and takes its time with them.
LONGEST_NUMBER = 1_000
LIBYAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KINDER_WORDS = {
    "dict_type": "must be a mapping: lines of `key: value`",
    "list_type": "must be a list: lines that begin with `- `",
    "missing": "is missing",
    "model_type": "must be a mapping: lines of `key: value`",
    "string_too_short": "is empty",
    "string_type": "must be a text: put it in quotes",
}


class Complaint(NamedTuple):
    """What is wrong at one place of the document; `place` is the path of keys and indexes that leads there.

    `line` is for what has a place that is taken: a key that is written twice. Counts from 1.
    """

    place: Place
    sentence: str
    line: int | None = None


class Mistakes(ValueError):
    """Raised by the validator of a model's field that found several, each with its place within the field."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints = list(complaints)
        super().__init__("; ".join(complaint.sentence for complaint in self.complaints))


class SourceError(Exception):
    """A hand-written file cannot be used. The message has one line a complaint: `file:line: place: what is wrong`."""


class Source:
    """One parsed document and the line each of its values starts in. Every key is text, also `on` and `1`."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `SourceError`, and nothing else, when it cannot be read or is not YAML."""
        self.path = path
        self.repeated: list[Complaint] = []
        self._lines: dict[Place, int] = {}
        root = self._parse(self._read())
        self.document: Any = self._constructed(root) if root is not None else None

    def validated(self, model: type[M]) -> M:
        """Return the document as `model`; raises `SourceError` with every violation of it."""
        complaints: list[Complaint] = []
        found = validate(model, self.document, (), complaints)
        if found is None or self.repeated:
            raise self.error(complaints)
        return found

    def error(self, complaints: Iterable[Complaint]) -> SourceError:
        """Write the complaints, and the keys that are written twice, as one error in the order of the file."""
        ordered = sorted([*complaints, *self.repeated], key=self._line_of)
        sentences = dict.fromkeys(map(self.sentence, ordered[:MOST_COMPLAINTS]))
        more = [f"{self.path}: and {left} more"] if (left := len(ordered) - MOST_COMPLAINTS) > 0 else []
        return SourceError("\n".join([*sentences, *more]))

    def line(self, place: Place) -> int:
        """Return the line of the value at `place`, or of the nearest thing around it that exists. Counts from 1."""
        while place not in self._lines and place:
            place = place[:-1]
        return self._lines.get(place, 1)

    def sentence(self, complaint: Complaint) -> str:
        """Write one complaint with its file and line."""
        where = ".".join(str(part) for part in complaint.place)
        return f"{self.path}:{self._line_of(complaint)}: {on_one_line(f'{where}: ' * bool(where) + complaint.sentence)}"

    def _line_of(self, complaint: Complaint) -> int:
        return complaint.line or self.line(complaint.place)

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                written = file.read(MOST_BYTES + 1)
            if len(written) > MOST_BYTES:
                raise SourceError(f"{self.path}: has more than {MOST_BYTES} bytes")
            return written.decode("utf-8")
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: is not UTF-8") from error
        except ValueError as error:
            # A name with a NUL in it.
            raise SourceError(f"{self.path}: cannot be read: {error}") from error

    def _parse(self, text: str) -> yaml.Node | None:
        try:
            _refuse_too_much(text)
            root = _composed(text)
        except _TooMuch as error:
            raise SourceError(f"{self.path}:{error.line}: {error}") from error
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise SourceError(
                f"{self.path}:{line}: is not YAML: character {chr(error.character)!r} is not allowed"
            ) from error
        except RecursionError as error:
            raise SourceError(f"{self.path}: is nested too deeply") from error
        if root is not None:
            self._note_lines(root, ())
        return root

    def _note_lines(self, node: yaml.Node, place: Place) -> None:
        self._lines[place] = line = node.start_mark.line + 1
        if len(place) > DEEPEST:
            raise SourceError(f"{self.path}:{line}: is nested too deeply")
        if len(self._lines) > MOST_VALUES:
            raise SourceError(f"{self.path}:{line}: holds more than {MOST_VALUES} values, aliases counted")
        for key, line_of_key, child in self._children(node):
            inner = (*place, key)
            if inner in self._lines:
                self.repeated.append(Complaint((key,), "is written twice", line_of_key))
                continue
            self._note_lines(child, inner)
            self._lines[inner] = line_of_key

    def _children(self, node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
        if isinstance(node, yaml.MappingNode):
            for key, child in node.value:
                yield self._key(key), key.start_mark.line + 1, child
        elif isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                yield index, child.start_mark.line + 1, child

    def _key(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode):
            # Nearly always a text that begins with an expression, which YAML takes for a mapping in a mapping.
            line = key.start_mark.line + 1
            raise SourceError(
                f"{self.path}:{line}: a key must be a text: put quotes around a text with {{{{ }}}} in it"
            )
        if key.tag != MERGE:
            key.tag = PLAIN_TEXT
        return str(key.value)

    def _constructed(self, root: yaml.Node) -> Any:
        try:
            return _SafeValues().construct_document(root)
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from error

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> SourceError:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return SourceError(f"{self.path}:{line}: is not YAML: {on_one_line(str(error.problem))}")


class _TooMuch(Exception):
    def __init__(self, event: yaml.Event, sentence: str) -> None:
        super().__init__(sentence)
        self.line = event.start_mark.line + 1 if event.start_mark else 1


def _refuse_too_much(text: str) -> None:
    """Raise `_TooMuch` before whoever calls itself for each level sees it: libyaml's composer dies of too many."""
    depth = 0
    with contextlib.suppress(yaml.YAMLError):
        for number, event in enumerate(yaml.parse(text, Loader=LIBYAML)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise _TooMuch(event, "is nested too deeply")
            # A key and a value each.
            if number > 2 * MOST_VALUES:
                raise _TooMuch(event, f"holds more than {MOST_VALUES} values")


def _composed(text: str) -> yaml.Node | None:
    """Parse with libyaml, in 5 ms where PyYAML's own parser takes 70; of a mistake the latter speaks better."""
    try:
        return yaml.compose(text, Loader=LIBYAML)
    except yaml.YAMLError:
        return yaml.compose(text, Loader=yaml.SafeLoader)


class _SafeValues(yaml.constructor.SafeConstructor):
    """PyYAML's own, without its loader: the nodes exist already."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _none_of_its_kind(node)
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The 31st of February, `!!bool perhaps`.
            raise _none_of_its_kind(node) from error


def _none_of_its_kind(node: yaml.Node) -> yaml.MarkedYAMLError:
    kind = node.tag.rpartition(":")[2]
    return yaml.constructor.ConstructorError(
        None, None, f"this is no {kind}: put quotes around a text", node.start_mark
    )


def validate(model: type[M], value: Any, place: Place, complaints: list[Complaint]) -> M | None:
    """Return what stands at `place` as `model`; or add every violation to the complaints and return `None`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        complaints += [one for detail in error.errors() for one in _complaints(detail, model, place)]
        return None


def meant(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like this one, if any does."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=SIMILAR)), None)


def unknown_key(key: str, known: Sequence[str], also: Sequence[str] = ()) -> str:
    """Say that a key is unknown and which of the known ones, or of those that are `also` right, was meant."""
    likely = meant(key, (*known, *also))
    return f"unknown key; did you mean {likely}?" if likely else f"unknown key; there are {', '.join(known)}"


def on_one_line(text: str) -> str:
    """Escape what would break a line or cannot be written: keys and sources may hold anything."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _complaints(detail: ErrorDetails, model: type[BaseModel], place: Place) -> list[Complaint]:
    found = detail.get("ctx", {}).get("error")
    if isinstance(found, Mistakes):
        return [Complaint((*place, *detail["loc"], *one.place), one.sentence) for one in found.complaints]
    return [_complaint(detail, model, place)]


def _complaint(detail: ErrorDetails, model: type[BaseModel], place: Place) -> Complaint:
    where = detail["loc"]
    if detail["type"] == "extra_forbidden":
        # Of the keys further in, the model that knows them is not at hand.
        known = [field.alias or name for name, field in model.model_fields.items()] if len(where) == 1 else []
        return Complaint((*place, *where), unknown_key(str(where[-1]), known) if known else "unknown key")
    words = KINDER_WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return Complaint((*place, *where), words)
