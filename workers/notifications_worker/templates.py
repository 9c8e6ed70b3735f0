"""Messages written from the files in `templates/`: `<id>.subject.j2`, `<id>.txt.j2` and `<id>.html.j2`.

Only these files are ever compiled. What a job brings is data for them: it can neither name another file nor be a
template itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rendered", "Templates"]

MAX_CHARACTERS = 1_000_000
SHIPPED = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template's three parts, filled in. The subject is one line unless the data broke it."""

    subject: str
    text: str
    html: str


class Templates:
    """The templates of one folder, compiled when first used."""

    def __init__(self, folder: Path = SHIPPED, *, max_characters: int = MAX_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._ids = sorted(file.name.removesuffix(".txt.j2") for file in folder.glob("*.txt.j2"))
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=lambda name: name is not None and name.endswith(".html.j2"),
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )

    def render(self, template_id: str, data: Mapping[str, Any]) -> Rendered:
        """Fill in a template. Raises PermanentError (TEMPLATE_ERROR) naming the template and what is wrong with it."""
        if template_id not in self._ids:
            raise _error(f"there is no template {template_id[:80]!r}; there are {', '.join(self._ids)}")
        return Rendered(
            subject=self._part(template_id, "subject", data).strip(),
            text=self._part(template_id, "txt", data),
            html=self._part(template_id, "html", data),
        )

    def _part(self, template_id: str, part: str, data: Mapping[str, Any]) -> str:
        try:
            return self._bounded(self._environment.get_template(f"{template_id}.{part}.j2"), data)
        except jinja2.UndefinedError as error:
            raise _error(f"template {template_id!r} ({part}): {error.message}") from error
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
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


def _error(sentence: str) -> PermanentError:
    return PermanentError("TEMPLATE_ERROR", sentence)
