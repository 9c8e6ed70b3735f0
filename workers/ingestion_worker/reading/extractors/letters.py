"""What mails of all kinds have in common: a letter's head, its text, and what is attached."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingestion_worker.document import Page
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.broken import typed_errors
from ingestion_worker.reading.extractors.html import blocks_of_html
from ingestion_worker.reading.flow import paged
from ingestion_worker.reading.identify import identify
from ingestion_worker.reading.normalise import normalise
from ingestion_worker.reading.opening import opened
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.reading.source import Source

__all__ = ["Attachment", "Letter", "extracted_letter"]

# Mails within mails, and what is attached to one of them.
DEEPEST = 5
MOST_ATTACHMENTS = 100
LONGEST_NAME = 120
# Bytes up to which a picture is taken for a signature's, about which nobody wants to be warned.
LOGO = 20_000
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f]+")
# These end the document: the machine had its part in them, or we are the ones who are wrong.
FATAL = (Problem.OOM, Problem.CRASH)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a mail, or another mail in it."""

    name: str
    content: bytes | Letter
    media_type: str | None = None
    charset: str | None = None


@dataclass(slots=True)
class Letter:
    """A mail as a person sees it. `head` are lines like `From: ...`; each text is plain or HTML."""

    subject: str
    head: dict[str, str]
    texts: list[tuple[str, bool]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def extracted_letter(letter: Letter, source: Source) -> Extracted:
    """Return the letter's pages, followed by those of each attachment that can be read."""
    found = {"title": letter.subject, "author": letter.head.get("From", ""), "created": letter.head.get("Date", "")}
    metadata: dict[str, str | int | float | bool] = {**found, "attachments": len(letter.attachments)}
    pages = (Page(number, text) for number, text in enumerate(_pages(letter, source, letter.warnings), start=1))
    return Extracted(pages, metadata, letter.warnings)


def _pages(letter: Letter, source: Source, warnings: list[str]) -> Iterator[str]:
    yield from paged(_letter(letter, preserve=source.preserve))
    if len(letter.attachments) > MOST_ATTACHMENTS:
        warnings.append(f"only the first {MOST_ATTACHMENTS} of {len(letter.attachments)} attachments were read")
    for attachment in letter.attachments[:MOST_ATTACHMENTS]:
        yield from _attached(attachment, source, warnings)


def _letter(letter: Letter, *, preserve: bool) -> Iterator[str]:
    if letter.subject:
        yield f"# {letter.subject}"
    if head := "\n".join(f"{name}: {value}" for name, value in letter.head.items() if value):
        yield head
    for text, is_html in letter.texts:
        if is_html:
            yield from blocks_of_html([text], {})
        else:
            yield from normalise(text, wrapped=True, preserve=preserve).split("\n\n")


def _attached(attachment: Attachment, source: Source, warnings: list[str]) -> Iterator[str]:
    """Yield an attachment's pages, below its name; one that cannot be read is a warning and not the mail's end."""
    name = _plain_name(attachment.name)
    try:
        with typed_errors():
            for text in _attached_pages(attachment, source, warnings):
                yield f"# Attachment: {name}\n\n{text}"
    except DocumentError as error:
        if error.problem in FATAL:
            raise
        warnings.append(f"attachment {name} was not read: {error.problem}, {error.sentence}")


def _attached_pages(attachment: Attachment, source: Source, warnings: list[str]) -> Iterable[str]:
    if source.depth >= DEEPEST:
        raise DocumentError(Problem.TOO_LARGE, f"it is more than {DEEPEST} mails deep")
    inner = replace(source, depth=source.depth + 1)
    if isinstance(attachment.content, Letter):
        return _pages(attachment.content, inner, warnings)
    return _pages_of_file(attachment, attachment.content, inner, warnings)


def _pages_of_file(attachment: Attachment, content: bytes, source: Source, warnings: list[str]) -> Iterator[str]:
    path = source.folder / f"attachment-{source.depth}"
    path.write_bytes(content)
    found = identify(path, (attachment.name.rpartition(".")[2],), attachment.media_type)
    source = replace(source, path=path, media_type=found.media_type, charset=attachment.charset)
    _, extracted = opened(source)
    unread = 0
    for page in extracted.pages:
        if page.text:
            yield normalise(page.text, wrapped=extracted.wrapped, preserve=source.preserve)
        elif page.ocr_reason:
            unread += 1
    warnings.extend(extracted.warnings)
    if unread and len(content) > LOGO:
        # OCR looks for pages in the document itself, and these are in a file within it.
        warnings.append(f"attachment {_plain_name(attachment.name)} has {unread} pictures of text: send it by itself")


def _plain_name(name: str) -> str:
    """Take the last part of a path in whatever system's style."""
    last = re.split(r"[/\\]", NOT_IN_NAMES.sub(" ", name).strip())[-1]
    return last[:LONGEST_NAME] or "without a name"
