"""What libraries raise for a broken file, and what that is called."""

from __future__ import annotations

import csv
import errno
import lzma
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["typed_errors"]

BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    ExpatError,
    struct.error,
    csv.Error,
    EOFError,
    UnicodeError,
    # Of compression methods that nobody uses in documents.
    NotImplementedError,
)
"""Raised for bytes that are not what their format says: the file is broken, not the worker."""


@contextmanager
def typed_errors() -> Iterator[None]:
    """Say what went wrong as a `DocumentError`, whatever it was."""
    try:
        yield
    except DocumentError:
        raise
    except BROKEN as error:
        raise DocumentError(
            Problem.CORRUPT, f"the file is damaged ({type(error).__name__}): export or upload it again"
        ) from error
    except RecursionError as error:
        raise DocumentError(Problem.BOMB, "the file is nested deeper than any real document") from error
    except MemoryError as error:
        raise _too_much_memory() from error
    # A class of its own, for whoever gets it must tell our mistake from the file's.
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise _too_much_memory() from error
        raise DocumentError(
            Problem.CRASH, f"reading stopped at a {type(error).__name__}: a mistake of the worker's, please report it"
        ) from error


def _too_much_memory() -> DocumentError:
    return DocumentError(Problem.OOM, "reading the file needed more memory than a document may have")
