"""Messages written from files: `<id>.subject.j2`, `<id>.txt.j2` and, for HTML beside the text, `<id>.html.j2`.

Only these files are ever compiled. What a job brings is data for them: it can neither name another file nor be a
template itself. All files of one id come from one folder, the first that has its `<id>.txt.j2`; a file whose name
begins with `_` is a part for others to include or extend.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import meta

from notifications_worker.bounded_jinja import BoundedEnvironment, TooMuch
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SHIPPED", "Rendered", "TemplateFolder", "Templates", "mistakes_in"]

MAX_CHARACTERS = 1_000_000
RENDER_SECONDS = 2.0
SHIPPED = Path(__file__).with_name("templates")
PARTS = ("subject", "txt", "html")
# What a template may raise of its own doing; anything else is a bug of ours.
FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template's three parts, filled in. The subject is one line unless the data broke it."""

    subject: str
    text: str
    html: str


class TemplateFolder:
    """The templates of one folder, compiled when first used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids = sorted(name for name in _ids(path, "txt") if not name.startswith("_"))
        self._with_html = _ids(path, "html")
        self.environment = BoundedEnvironment(jinja2.FileSystemLoader(path))

    def parts(self, template_id: str) -> list[str]:
        """Return which of `PARTS` the template has; HTML is the one it may lack."""
        return [part for part in PARTS if part != "html" or template_id in self._with_html]

    def mistakes(self) -> list[str]:
        """Return everything wrong with the folder, each with its file and line."""
        files = sorted(file.name for file in self.path.glob("*.j2"))
        return [*self._unpaired(), *(mistake for name in files for mistake in self._mistakes_of(name))]

    def _unpaired(self) -> Iterable[str]:
        for template_id in self.ids:
            if template_id not in _ids(self.path, "subject"):
                yield f"{template_id}.txt.j2: there is no {template_id}.subject.j2 beside it"
        for part in ("subject", "html"):
            for template_id in sorted(_ids(self.path, part) - set(self.ids)):
                if not template_id.startswith("_"):
                    yield f"{template_id}.{part}.j2: there is no {template_id}.txt.j2 beside it"

    def _mistakes_of(self, name: str) -> Iterable[str]:
        try:
            source = (self.path / name).read_text(encoding="utf-8")
            self.environment.compile(source, name, name)
            referred = meta.find_referenced_templates(self.environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            yield f"{name}:{error.lineno}: {error.message}"
        except (OSError, UnicodeDecodeError) as error:
            yield f"{name}: cannot be read as UTF-8 ({type(error).__name__})"
        else:
            missing = (other for other in referred if other is not None and not (self.path / other).is_file())
            yield from (f"{name}: includes {other}, which is not there" for other in missing)


class Templates:
    """The templates of several folders, of which the first that has one wins. May be used in several threads."""

    def __init__(
        self, *paths: Path, max_characters: int = MAX_CHARACTERS, render_seconds: float = RENDER_SECONDS
    ) -> None:
        self._max_characters = max_characters
        self._render_seconds = render_seconds
        folders = [TemplateFolder(path) for path in paths or (SHIPPED,)]
        self.found = {name: folder for folder in reversed(folders) for name in folder.ids}

    def render(self, template_id: str, data: Mapping[str, Any]) -> Rendered:
        """Fill in a template. Raises PermanentError (TEMPLATE_ERROR) naming the template and what is wrong with it."""
        folder = self.found.get(template_id)
        if folder is None:
            raise _error(f"there is no template {template_id[:80]!r}; there are {', '.join(sorted(self.found))}")
        with folder.environment.within(self._render_seconds):
            parts = {part: self._part(folder, template_id, part, data) for part in folder.parts(template_id)}
        return Rendered(parts["subject"].strip(), parts["txt"], parts.get("html", ""))

    def _part(self, folder: TemplateFolder, template_id: str, part: str, data: Mapping[str, Any]) -> str:
        try:
            return self._bounded(folder.environment.get_template(f"{template_id}.{part}.j2"), data)
        except (jinja2.UndefinedError, TooMuch) as error:
            raise _error(f"template {template_id!r} ({part}): {error.message}") from error
        except FAILURES as error:
            # Such an error may quote the data, which is somebody's name or worse.
            raise _error(f"template {template_id!r} ({part}): {type(error).__name__} with this templateData") from error

    def _bounded(self, template: jinja2.Template, data: Mapping[str, Any]) -> str:
        written, pieces = 0, []
        for piece in template.generate(dict(data)):
            written += len(piece)
            if written > self._max_characters:
                raise _error(f"template {template.name!r}: longer than {self._max_characters} characters")
            pieces.append(piece)
        return "".join(pieces)


def mistakes_in(path: Path) -> list[str]:
    """Return everything wrong with a folder of templates, each with its file and line."""
    return TemplateFolder(path).mistakes()


def _ids(path: Path, part: str) -> set[str]:
    return {file.name.removesuffix(f".{part}.j2") for file in path.glob(f"*.{part}.j2")}


def _error(sentence: str) -> PermanentError:
    return PermanentError("TEMPLATE_ERROR", sentence)
