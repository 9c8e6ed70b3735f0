"""Office documents that are locked with a password, old and new."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.compound_file import LOCKED

if TYPE_CHECKING:
    from pathlib import Path

    from ingestion_worker.reading.source import Source

__all__ = ["unlocked"]

# What msoffcrypto raises for a broken file depends on where that is broken.
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, AssertionError, struct.error)
# Excel "locks" documents that are only to be read with this, and opens them without asking.
EVERYBODYS = "VelvetSweatshop"


def unlocked(source: Source) -> Path | None:
    """Write an unlocked copy into the folder and return where; `None` for a document that is not locked.

    Raises ENCRYPTED if the password is missing or wrong.
    """
    import msoffcrypto  # noqa: PLC0415  most documents are not locked
    from msoffcrypto.exceptions import DecryptionError, FileFormatError, InvalidKeyError, ParseError  # noqa: PLC0415

    with source.path.open("rb") as file:
        try:
            office = msoffcrypto.OfficeFile(file)
            if source.media_type != LOCKED and not office.is_encrypted():
                return None
            return _copy(office, source)
        except (DecryptionError, InvalidKeyError) as error:
            raise _refusal(source.password) from error
        except (FileFormatError, ParseError) as error:
            if source.media_type != LOCKED:
                return None  # Its extractor has the better sentence.
            raise DocumentError(Problem.CORRUPT, "the locked document is damaged: export or upload it again") from error
        except BROKEN as e:
            if source.media_type != LOCKED:
                return None
            raise DocumentError(Problem.CORRUPT, "the locked document is damaged: export or upload it again") from e


def _copy(office: object, source: Source) -> Path:
    path = source.folder / f"{source.path.name}-unlocked"
    with path.open("wb") as copy:
        office.load_key(password=source.password or EVERYBODYS)  # type: ignore[attr-defined]
        office.decrypt(copy)  # type: ignore[attr-defined]
    return path


def _refusal(password: str | None) -> DocumentError:
    if password:
        return DocumentError(Problem.ENCRYPTED, "the password does not open the document: send the right one")
    return DocumentError(Problem.ENCRYPTED, "the document is locked with a password: send it as options.password")
