"""`intelliflow template`: which templates there are, and what one makes of given data; nothing is sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notifications_worker.channels.email_settings import TemplateSettings
from notifications_worker.templates import SHIPPED, Templates, mistakes_in
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, write_rows
from worker_runtime.outcome import PermanentError
from worker_runtime.settings import WorkerSettings

if TYPE_CHECKING:
    import argparse

    from notifications_worker.templates import Rendered, TemplateFolder
    from worker_ops.arguments import Commands

WAYS = ("text", "html", "json")


class PreviewSettings(TemplateSettings, WorkerSettings):
    """What these commands read."""


def register(commands: Commands) -> None:
    """Add the command and its verbs."""
    parser: argparse.ArgumentParser = commands.add_parser("template", help="look at the templates of messages")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="show which templates there are and where they come from")
    _add_folder(listing)
    add_output(listing)
    listing.set_defaults(command=_list, settings_type=PreviewSettings)
    preview = verbs.add_parser("preview", help="write what a template makes of data; nothing is sent")
    preview.add_argument("name", metavar="NAME", help="its templateId")
    preview.add_argument("--data", metavar="FILE", help="templateData: a JSON file, or - for standard input")
    preview.add_argument("-o", "--output", choices=WAYS, default="text", help="which part of it (default: text)")
    _add_folder(preview)
    preview.set_defaults(command=_preview, settings_type=PreviewSettings)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="templates of your own, instead of TEMPLATES_DIR")


def _list(asked: argparse.Namespace, settings: PreviewSettings) -> ExitCode:
    found = sorted(_templates(asked, settings).found.items())
    write_rows([_row(name, folder) for name, folder in found], asked.output)
    return ExitCode.OK


def _row(name: str, folder: TemplateFolder) -> dict[str, Any]:
    return {
        "name": name,
        "from": "shipped" if folder.path == SHIPPED else str(folder.path),
        "html": "html" in folder.parts(name),
    }


def _preview(asked: argparse.Namespace, settings: PreviewSettings) -> ExitCode:
    templates = _templates(asked, settings)
    if asked.name not in templates.found:
        known = ", ".join(sorted(templates.found))
        raise CommandFailed(ExitCode.NOT_FOUND, f"there is no template {asked.name!r}; there are {known}")
    try:
        rendered = templates.render(asked.name, _data(asked.data))
    except PermanentError as error:
        raise CommandFailed(ExitCode.FAILED, error.sentence) from error
    sys.stdout.write(_written(rendered, asked.output))
    return ExitCode.OK


def _templates(asked: argparse.Namespace, settings: PreviewSettings) -> Templates:
    if asked.folder is None:
        return settings.templates()
    if not asked.folder.is_dir():
        raise CommandFailed(ExitCode.NOT_FOUND, f"there is no folder {asked.folder}")
    if mistakes := mistakes_in(asked.folder):
        raise CommandFailed(ExitCode.FAILED, *mistakes)
    return Templates(asked.folder, SHIPPED)


def _data(where: str | None) -> dict[str, Any]:
    try:
        text = "{}" if where is None else sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8")
        data = json.loads(text)
    except FileNotFoundError as error:
        raise CommandFailed(ExitCode.NOT_FOUND, f"there is no file {where}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CommandFailed(ExitCode.FAILED, f"{where} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CommandFailed(ExitCode.FAILED, f"{where} must be a JSON object, like a job's content.templateData")
    return data


def _written(rendered: Rendered, how: str) -> str:
    match how:
        case "html" if not rendered.html:
            raise CommandFailed(ExitCode.NOT_FOUND, "this template has no HTML: mail made of it is plain text")
        case "html":
            return f"{rendered.html}\n"
        case "json":
            parts = {"subject": rendered.subject, "text": rendered.text, "html": rendered.html or None}
            return f"{json.dumps(parts, indent=2, ensure_ascii=False)}\n"
        case _:
            return f"Subject: {rendered.subject}\n\n{rendered.text}\n"
