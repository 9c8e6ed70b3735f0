"""OLE compound files: old Office documents, Outlook's mails, and new Office documents that are locked."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.charset import known_charset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from olefile import OleFileIO

__all__ = [
    "COMPOUND_FILE",
    "LOCKED",
    "media_type_of_compound_file",
    "opened_compound_file",
    "properties_of_compound_file",
    "with_whole_sectors",
]

COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

# Not a media type of anybody's: what is in it shows once it is unlocked.
LOCKED = "application/x-locked-office-document"

# The stream that each kind has.
KINDS = (
    ("EncryptedPackage", LOCKED),
    ("__properties_version1.0", types.MSG),
    ("WordDocument", types.DOC),
    ("Workbook", types.XLS),
    ("Book", types.XLS),
    ("PowerPoint Document", types.PPT),
)
FOREIGN = {
    "VisioDocument": "a Visio drawing",
    "Quill": "a Publisher document",
    "CONTENTS": "a Works document",
    "__nameid_version1.0": "an Outlook file of another kind than a mail",
    "\x05SummaryInformation": "an installer or another Windows file",
}


@contextmanager
def opened_compound_file(path: Path) -> Iterator[OleFileIO]:
    """Open such a file. Raises CORRUPT for one whose directory cannot be read."""
    import olefile  # noqa: PLC0415  most documents are none of these

    try:
        with olefile.OleFileIO(str(path)) as file:
            yield file
    # olefile unpacks whatever it is given: what it raises for a broken file depends on where that is broken.
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DocumentError(Problem.CORRUPT, "the file is damaged inside: export or upload it again") from error


def media_type_of_compound_file(path: Path) -> str:
    """Return what is in it. Raises UNSUPPORTED with what it seems to be."""
    with opened_compound_file(path) as file:
        names = {entry[0].lower() for entry in file.listdir()}
    for name, media_type in KINDS:
        if name.lower() in names:
            return media_type
    seems = next((seems for name, seems in FOREIGN.items() if name.lower() in names), "a Windows file of unknown kind")
    raise DocumentError(Problem.UNSUPPORTED, f"the file seems to be {seems}; see the list of formats in the manual")


# Where Windows' clock stands that nobody has set.
BEGINNING_OF_TIME = 1601
# Bytes in front of the first sector, and those that one sector of the allocation table speaks of.
HEAD, SPOKEN_OF = 512, 128 * 512


def with_whole_sectors(path: Path) -> Path:
    """Return a copy as long as its allocation table says at most: what is missing at the end is not in use."""
    longer = path.with_name(f"{path.name}-whole")
    shutil.copyfile(path, longer)
    size = path.stat().st_size
    os.truncate(longer, HEAD + -(-(size - HEAD) // SPOKEN_OF) * SPOKEN_OF)
    return longer


def properties_of_compound_file(path: Path) -> dict[str, str | int | float | bool]:
    """Return what a document says about itself; what of that is broken is left out."""
    with opened_compound_file(path) as file:
        found = file.get_metadata()
    named = {
        "title": found.title,
        "author": found.author,
        "subject": found.subject,
        "keywords": found.keywords,
        "created": found.create_time,
        "modified": found.last_saved_time,
    }
    charset = known_charset(f"cp{(found.codepage or 0) & 0xFFFF}") or "cp1252"
    return {name: text for name, value in named.items() if (text := _shown(value, charset))}


def _shown(value: object, charset: str) -> str:
    if isinstance(value, bytes):
        return value.decode(charset, "replace").strip("\0 ")
    return value.isoformat() if isinstance(value, datetime) and value.year > BEGINNING_OF_TIME else ""
