"""What a file is. Its bytes have the first word; the sender's is asked where bytes do not tell."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, NamedTuple
from xml.parsers.expat import ExpatError

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading import media_types as types
from ingestion_worker.reading.compound_file import COMPOUND_FILE, media_type_of_compound_file
from ingestion_worker.reading.guard import guard_zip
from ingestion_worker.reading.media_types import media_type_named
from ingestion_worker.reading.package import Package
from ingestion_worker.reading.text_kinds import text_kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Identified", "identify"]

# Bytes looked at. A PDF may begin after as much as a kilobyte of something else.
HEAD = 65_536
PDF_WITHIN = 1_024

MAGIC = (
    (b"\x89PNG\r\n\x1a\n", types.PNG),
    (b"\xff\xd8\xff", types.JPEG),
    (b"GIF87a", types.GIF),
    (b"GIF89a", types.GIF),
    (b"II*\0", types.TIFF),
    (b"MM\0*", types.TIFF),
    (b"II+\0", types.TIFF),
    (b"MM\0+", types.TIFF),
    (b"{\\rtf", types.RTF),
    # The beginnings of Excel 2, 3 and 4.
    (b"\x09\0\x04\0", types.XLS),
    (b"\x09\x02\x06\0", types.XLS),
    (b"\x09\x04\x06\0", types.XLS),
)
ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")

POSTSCRIPT = "PostScript"  # Text, and yet none.
# What people do send, and how we call it when we say no.
FOREIGN = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"MSCF", "a Windows cabinet"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"%!PS", POSTSCRIPT),
    (b"\xc5\xd0\xd3\xc6", POSTSCRIPT),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"ID3", "a sound file"),
    (b"OggS", "a sound or video file"),
    (b"fLaC", "a sound file"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"SQLite format 3", "a database"),
    (b"\xffWPC", "a WordPerfect document"),
    (b"!BDN", "an Outlook mailbox"),
    (b"x\x9f>\x22", "an Outlook attachment of kind winmail.dat"),
    (b"AT&TF", "a DjVu document"),
    (b"wOFF", "a font"),
    (b"\xdb\xa5\x2d\0", "a document of Word 2"),
    (b"PAR1", "a Parquet table"),
)
# ISO media files tell in bytes 4 to 12.
BOXES = {b"ftyphe": "a HEIC picture", b"ftypmi": "a HEIC picture", b"ftypav": "an AVIF picture", b"ftyp": "a video"}

# Kinds of the main part of an OOXML package, as [Content_Types].xml ends them.
OPEN_XML_KINDS = (
    ("wordprocessingml.", types.DOCX),
    ("ms-word.", types.DOCX),
    ("spreadsheetml.", types.XLSX),
    ("ms-excel.sheet.binary", None),
    ("ms-excel.", types.XLSX),
    ("presentationml.", types.PPTX),
    ("ms-powerpoint.", types.PPTX),
)
LONGEST_MIMETYPE = 128
# Each kind of package has one of these.
CONTENT_TYPES, MIMETYPE, CONTAINER = "[Content_Types].xml", "mimetype", "META-INF/container.xml"


class Identified(NamedTuple):
    """The media type found, and the one that the sender gave if he gave one that we know."""

    media_type: str
    declared: str | None


def identify(path: Path, names: Sequence[str | None], declared_type: str | None) -> Identified:
    """Return what the file is. `names` are the sender's: a format, the end of a file name; `declared_type` is HTTP's.

    Raises EMPTY for no bytes, UNSUPPORTED with what it seems to be, BOMB or TOO_LARGE for an archive that is one.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise DocumentError(Problem.EMPTY, "the file has no bytes: the upload did not work, or its source is empty")
    named = [media_type for name in (*names, declared_type) if (media_type := media_type_named(name))]
    if media_type_named(declared_type) == types.TEXT:
        named = named[:-1]  # What servers say of anything that they do not know.
    found = _by_magic(head) or _by_container(head, path) or _text(head, named)
    return Identified(found, named[0] if named else None)


def _by_magic(head: bytes) -> str | None:
    if (at := head.find(b"%PDF-", 0, PDF_WITHIN)) >= 0 and (at == 0 or not _looks_like_text(head[:at])):
        return types.PDF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return types.WEBP
    if head[:2] == b"BM" and head[14:18] in (b"\x0c\0\0\0", b"\x28\0\0\0", b"\x38\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"):
        return types.BMP
    return next((media_type for magic, media_type in MAGIC if head.startswith(magic)), None)


def _looks_like_text(head: bytes) -> bool:
    """Tell a text that speaks of PDFs from a PDF below a few lines of a mail gateway's."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    return len(head) > 0 and b"\n" not in head[-2:] and b"\r" not in head[-2:] and b"\0" not in head


def _by_container(head: bytes, path: Path) -> str | None:
    if head.startswith(COMPOUND_FILE):
        return media_type_of_compound_file(path)
    if head.startswith(ZIPS):
        return _media_type_of_zip(path)
    foreign = next((name for magic, name in FOREIGN if head.startswith(magic)), None)
    foreign = foreign or next((name for box, name in BOXES.items() if head[4:].startswith(box)), None)
    if foreign and (foreign == POSTSCRIPT or not _is_writing(head)):
        raise _unsupported(foreign)
    return None


def _is_writing(head: bytes) -> bool:
    """Tell a text that begins with MZ or BZh from what these letters stand for."""
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:512])  # noqa: PLR2004  ASCII


def _media_type_of_zip(path: Path) -> str:
    try:
        package = Package(path)
    except zipfile.BadZipFile as error:
        raise DocumentError(
            Problem.CORRUPT, "it is a zip archive without its end, as of a broken upload: upload it again"
        ) from error
    except (OSError, ValueError, OverflowError, NotImplementedError) as error:
        raise DocumentError(Problem.CORRUPT, "it is a damaged zip archive: upload it again") from error
    if not any(map(package.has, (CONTENT_TYPES, MIMETYPE, CONTAINER))):
        raise _unsupported(_kind_of_archive(package))
    guard_zip(path)
    if package.has(CONTENT_TYPES):
        return _open_xml_kind(package)
    if package.has(MIMETYPE):
        with package.opened(MIMETYPE) as file:
            return _kind_of_mimetype(file.read(LONGEST_MIMETYPE).decode("ascii", "replace").strip())
    return types.EPUB


def _open_xml_kind(package: Package) -> str:
    try:
        kinds = [
            event.attributes.get("ContentType", "").lower()
            for event in package.events(CONTENT_TYPES)
            if event.kind == "start" and (event.name == "Override" or event.attributes.get("Extension") == "xml")
        ]
    except ExpatError as error:
        raise DocumentError(Problem.CORRUPT, "the table of contents of the file is damaged: upload it again") from error
    main = [kind for kind in kinds if "main" in kind and "application/" in kind]
    for kind in main:
        for part, media_type in OPEN_XML_KINDS:
            if part in kind:
                if media_type is None:
                    raise _unsupported("a binary Excel sheet (xlsb); save it as xlsx")
                return media_type
    raise _unsupported(_other_open_xml(package))


def _other_open_xml(package: Package) -> str:
    if package.has("word/document.xml") or package.has("xl/workbook.xml") or package.has("ppt/presentation.xml"):
        raise DocumentError(Problem.CORRUPT, "the file does not say what its main part is: export or upload it again")
    names = " ".join(package.names[:100])
    known = {"visio/": "a Visio drawing", "fixeddocseq": "an XPS document", "3d/": "a 3D model"}
    return next((name for part, name in known.items() if part in names), "an Office package of an unknown kind")


def _kind_of_mimetype(written: str) -> str:
    plain = written.removesuffix("-template")
    media_type = media_type_named(plain)
    if media_type is None:
        raise _unsupported(f"{plain[:LONGEST_MIMETYPE] or 'a package of an unknown kind'}")
    return media_type


def _kind_of_archive(package: Package) -> str:
    names = " ".join(package.names[:1000])
    if "index.zip" in names or "index/document.iwa" in names:
        return "a document of Apple's Pages, Numbers or Keynote; export it as PDF"
    if "androidmanifest.xml" in names or "meta-inf/manifest.mf" in names:
        return "a program"
    return "a zip archive; send what is in it, one by one"


def _text(head: bytes, named: Sequence[str]) -> str:
    kind = text_kind(head, [name for name in named if name in types.TEXTS])
    if kind.media_type is None:
        if named and named[0] not in types.TEXTS and not kind.is_text:
            raise DocumentError(Problem.CORRUPT, f"it is called {named[0]}, but has nothing of it: upload it again")
        raise _unsupported(kind.seems)
    return kind.media_type


def _unsupported(seems: str) -> DocumentError:
    return DocumentError(Problem.UNSUPPORTED, f"the file seems to be {seems}; see the list of formats in the manual")
