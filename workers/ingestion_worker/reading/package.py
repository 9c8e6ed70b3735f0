"""Office packages: a zip of XML parts, which relate to each other (OOXML) or have fixed names (ODF, EPUB)."""

from __future__ import annotations

import posixpath
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.xml_events import feed, xml_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ingestion_worker.reading.xml_events import XmlEvent, XmlHandler

__all__ = ["Package", "Related"]

# Properties in docProps/core.xml, meta.xml and an EPUB's package document, and what we call them.
PROPERTIES = {
    "title": "title",
    "creator": "author",
    "initial-creator": "author",
    "subject": "subject",
    "description": "description",
    "keywords": "keywords",
    "keyword": "keywords",
    "created": "created",
    "creation-date": "created",
    "modified": "modified",
    "date": "modified",
    "language": "language",
    "publisher": "publisher",
}


class Related(NamedTuple):
    """A part that another one refers to: the last word of the relation's type, and the part's name."""

    kind: str
    part: str


class Package:
    """An archive that was found safe. Parts are streams."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        # Some programs write Windows' separators.
        self._names = {name.lower().replace("\\", "/"): name for name in self._archive.namelist()}

    @property
    def names(self) -> list[str]:
        """All parts, in lower case."""
        return list(self._names)

    def has(self, part: str) -> bool:
        """Say whether the part is there. Case does not matter, as the standard says."""
        return part.lower() in self._names

    @contextmanager
    def opened(self, part: str) -> Iterator[IO[bytes]]:
        """Open a part. Raises CORRUPT if it is missing."""
        name = self._names.get(part.lower())
        if name is None:
            raise DocumentError(Problem.CORRUPT, "a part of the file is missing: export or upload it again")
        try:
            with self._archive.open(name) as file:
                yield file
        except (OSError, ValueError, OverflowError, RuntimeError) as error:
            # The archive's directory points nowhere, or into something else.
            if isinstance(error, (UnicodeError, RecursionError)):
                raise
            raise DocumentError(Problem.CORRUPT, "the file is damaged inside: export or upload it again") from error

    def events(self, part: str) -> Iterator[XmlEvent]:
        """Yield what an XML part holds."""
        with self.opened(part) as file:
            yield from xml_events(file)

    def feed(self, part: str, handler: XmlHandler) -> Iterator[None]:
        """Tell a handler the same; yields after each piece."""
        with self.opened(part) as file:
            yield from feed(file, handler)

    def related(self, part: str) -> dict[str, Related]:
        """Return the parts that one refers to, by the id it uses for them. `""` is the package itself."""
        folder, name = posixpath.split(part)
        relations = posixpath.join(folder, "_rels", f"{name}.rels")
        if not self.has(relations):
            return {}
        return {
            event.attributes.get("Id", ""): Related(
                event.attributes.get("Type", "").rpartition("/")[2], _target(folder, event.attributes.get("Target", ""))
            )
            for event in self.events(relations)
            if event.kind == "start"
            and event.name == "Relationship"
            and event.attributes.get("TargetMode") != "External"
        }

    def first_related(self, part: str, kind: str) -> str | None:
        """Return the first part of that kind which exists."""
        return next((r.part for r in self.related(part).values() if r.kind == kind and self.has(r.part)), None)

    def properties(self, part: str | None) -> dict[str, str | int | float | bool]:
        """Return what a part says about the document. Raises nothing for a part that is missing."""
        found: dict[str, str | int | float | bool] = {}
        if part is None or not self.has(part):
            return found
        name, text = "", ""
        for event in self.events(part):
            if event.kind == "start":
                name, text = event.name, ""
            elif event.kind == "text":
                text += event.text
            elif event.name == name and name in PROPERTIES and text.strip():
                found.setdefault(PROPERTIES[name], text.strip())
        return found


def _target(folder: str, target: str) -> str:
    """Resolve a reference as the standard says: relative to its part, or from the root."""
    return posixpath.normpath(posixpath.join("/", folder, unquote(target))).lstrip("/")
