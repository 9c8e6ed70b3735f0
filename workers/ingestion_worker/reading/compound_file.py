"""OLE compound files: old Office documents, Outlook's mails, and new Office documents that are locked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading import media_types as types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from olefile import OleFileIO

__all__ = ["LOCKED", "media_type_of_compound_file", "opened_compound_file"]

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
