"""XML as a stream of starts, ends and texts: of bounded memory, and deaf to entities."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Literal, NamedTuple
from xml.parsers import expat

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["XmlEvent", "xml_events"]

# Bytes parsed at once.
PIECE = 65_536
# Word's deepest real documents (tables in tables in text boxes) stay below 150.
DEEPEST = 1_000


class XmlEvent(NamedTuple):
    """`name` is without its namespace, as are those of `attributes`; `text` is of texts alone."""

    kind: Literal["start", "end", "text"]
    name: str
    attributes: dict[str, str]
    text: str


def xml_events(file: IO[bytes]) -> Iterator[XmlEvent]:
    """Yield what is in the file. Raises BOMB for entities, which no office program writes, and for endless nesting."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    gathered = _Gathered()
    parser.StartElementHandler = gathered.start
    parser.EndElementHandler = gathered.end
    parser.CharacterDataHandler = gathered.characters
    parser.EntityDeclHandler = _refuse_entity
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    while piece := file.read(PIECE):
        parser.Parse(piece, False)
        yield from gathered.taken()
    parser.Parse(b"", True)
    yield from gathered.taken()


class _Gathered:
    def __init__(self) -> None:
        self._events: list[XmlEvent] = []
        self._names: dict[str, str] = {}
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise DocumentError(Problem.BOMB, f"its XML is nested more than {DEEPEST} deep")
        self._events.append(XmlEvent("start", self._local(name), self._without_namespaces(attributes), ""))

    def end(self, name: str) -> None:
        self._depth -= 1
        self._events.append(XmlEvent("end", self._local(name), {}, ""))

    def characters(self, text: str) -> None:
        self._events.append(XmlEvent("text", "", {}, text))

    def taken(self) -> list[XmlEvent]:
        events, self._events = self._events, []
        return events

    def _without_namespaces(self, attributes: dict[str, str]) -> dict[str, str]:
        """Let `r:id` win over `id`: a relation's says more than a number."""
        plain: dict[str, str] = {}
        for name, value in attributes.items():
            if " " in name:
                plain[self._local(name)] = value
            else:
                plain.setdefault(name, value)
        return plain

    def _local(self, name: str) -> str:
        local = self._names.get(name)
        if local is None:
            local = name.rpartition(" ")[2]
            if len(self._names) < PIECE:  # A file may invent a new name for every element.
                self._names[name] = local
        return local


def _refuse_entity(*_: object) -> None:
    raise DocumentError(Problem.BOMB, "its XML declares entities, which no office program writes and only do harm")
