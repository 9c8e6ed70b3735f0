"""XML as a stream of starts, ends and texts: of bounded memory, and deaf to entities."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Literal, NamedTuple, Protocol
from xml.parsers import expat

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["XmlEvent", "XmlHandler", "feed", "xml_events"]

# Bytes parsed at once.
PIECE = 65_536
# Word's deepest real documents (tables in tables in text boxes) stay below 150.
DEEPEST = 1_000


class XmlHandler(Protocol):
    """Is told what is in a file, in its order. Names are without their namespaces."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the start of an element. Names of attributes are as expat gives them: `namespace name`, or `name`."""

    def end(self, name: str) -> None:
        """Take its end."""

    def text(self, text: str) -> None:
        """Take text between two of them."""


class XmlEvent(NamedTuple):
    """`name` is without its namespace, as are those of `attributes`; `text` is of texts alone."""

    kind: Literal["start", "end", "text"]
    name: str
    attributes: dict[str, str]
    text: str


def xml_events(file: IO[bytes]) -> Iterator[XmlEvent]:
    """Yield what is in the file. Raises BOMB for entities, which no office program writes, and for endless nesting."""
    gathered = _Gathered()
    for _ in feed(file, gathered):
        yield from gathered.taken()


def feed(file: IO[bytes], handler: XmlHandler) -> Iterator[None]:
    """Tell a handler what is in the file, and yield after each piece of it; raises what `xml_events` raises."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.EntityDeclHandler = _refuse_entity
    parser.CharacterDataHandler = handler.text
    parser.StartElementHandler, parser.EndElementHandler = _with_local_names(handler)
    while piece := file.read(PIECE):
        parser.Parse(piece)
        yield
    parser.Parse(b"", True)  # noqa: FBT003  that was the last piece
    yield


def _with_local_names(handler: XmlHandler) -> tuple[Callable[[str, dict[str, str]], None], Callable[[str], None]]:
    """Strip namespaces and watch the depth; closures, for this is called for each of millions of elements."""
    names: dict[str, str] = {}
    depth = 0
    tell_start, tell_end = handler.start, handler.end

    def local(name: str) -> str:
        plain = name.rpartition(" ")[2]
        if len(names) < PIECE:  # A file may invent a new name for every element.
            names[name] = plain
        return plain

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DocumentError(Problem.BOMB, f"its XML is nested more than {DEEPEST} deep")
        tell_start(names.get(name) or local(name), attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        tell_end(names.get(name) or local(name))

    return start, end


class _Gathered:
    def __init__(self) -> None:
        self._events: list[XmlEvent] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._events.append(XmlEvent("start", name, _without_namespaces(attributes) if attributes else attributes, ""))

    def end(self, name: str) -> None:
        self._events.append(XmlEvent("end", name, {}, ""))

    def text(self, text: str) -> None:
        self._events.append(XmlEvent("text", "", {}, text))

    def taken(self) -> list[XmlEvent]:
        events, self._events = self._events, []
        return events


def _without_namespaces(attributes: dict[str, str]) -> dict[str, str]:
    """Let `r:id` win over `id`: a relation's says more than a number."""
    plain: dict[str, str] = {}
    for name, value in attributes.items():
        if " " in name:
            plain[name.rpartition(" ")[2]] = value
        else:
            plain.setdefault(name, value)
    return plain


def _refuse_entity(*_: object) -> None:
    raise DocumentError(Problem.BOMB, "its XML declares entities, which no office program writes and only do harm")
