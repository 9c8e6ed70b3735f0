"""EML: mail as it travels, with whatever is attached."""

from __future__ import annotations

from email import message_from_binary_file
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.policy import compat32
from typing import TYPE_CHECKING, Any

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.charset import decoded
from ingestion_worker.reading.extractors.html import declared_charset
from ingestion_worker.reading.extractors.letters import Attachment, Letter, extracted_letter

if TYPE_CHECKING:
    from email.header import Header
    from email.message import Message

    from ingestion_worker.reading.source import Extracted, Source

__all__ = ["extract"]

HEAD = ("From", "To", "Cc", "Date")
# Parts within parts within one mail; each costs the parser of the standard library a few frames.
DEEPEST_PART = 60
DEEPEST_MAIL = 20
LONGEST_HEADER = 2_000


def extract(source: Source) -> Extracted:
    """Read a mail."""
    with source.path.open("rb") as file:
        try:
            message = message_from_binary_file(file, policy=compat32)
        except RecursionError as error:
            raise DocumentError(Problem.BOMB, "its parts are nested deeper than any mail's") from error
        except (MessageError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise DocumentError(Problem.CORRUPT, "the mail is damaged: export or upload it again") from error
    return extracted_letter(_letter(message, 0), source)


def _letter(message: Message, depth: int) -> Letter:
    letter = Letter(_header(message, "Subject"), {name: _header(message, name) for name in HEAD})
    _take(message, letter, depth, 0)
    return letter


def _take(part: Message, letter: Letter, mails: int, parts: int) -> None:
    if parts > DEEPEST_PART or mails > DEEPEST_MAIL:
        raise DocumentError(Problem.BOMB, "its parts are nested deeper than any mail's")
    kind = part.get_content_type()
    # Of a container these are messages, whatever the standard library's types say.
    content: Any = part.get_payload()
    if kind.startswith("message/") and isinstance(content, list):
        for message in content:
            inner = _letter(message, mails + 1)
            letter.attachments.append(Attachment(_name(part) or inner.subject or "mail", inner))
    elif kind == "multipart/alternative" and isinstance(content, list):
        _take_alternative(content, letter, mails, parts)
    elif isinstance(content, list):
        for child in content:
            _take(child, letter, mails, parts + 1)
    else:
        _take_leaf(part, letter)


def _take_alternative(children: list[Message], letter: Letter, mails: int, parts: int) -> None:
    """Take one of several ways to say the same: plain text if there is any, for that is what the author typed."""
    variants: list[Letter] = []
    for child in children:
        variant = Letter("", {})
        _take(child, variant, mails, parts + 1)
        letter.attachments += variant.attachments
        letter.warnings += variant.warnings
        variants.append(variant)
    telling = [variant for variant in variants if any(text.strip() for text, _ in variant.texts)]
    plain = [variant for variant in telling if not any(is_html for _, is_html in variant.texts)]
    letter.texts += (plain or telling[-1:] or [Letter("", {})])[0].texts


def _take_leaf(part: Message, letter: Letter) -> None:
    content = _content(part)
    kind, name = part.get_content_type(), _name(part)
    attached = part.get_content_disposition() == "attachment" or bool(name)
    if kind in ("text/plain", "text/html") and not attached:
        is_html = kind == "text/html"
        declared = [("sender", _charset(part)), ("document", declared_charset(content[:4096]) if is_html else None)]
        letter.texts.append((decoded(content, declared), is_html))
    elif content:
        letter.attachments.append(Attachment(name or kind, content, kind, _charset(part)))


def _content(part: Message) -> bytes:
    try:
        content = part.get_payload(decode=True)
    except (ValueError, LookupError, TypeError, AttributeError):
        content = None  # An encoding of nobody's.
    return content if isinstance(content, bytes) else b""


def _charset(part: Message) -> str | None:
    try:
        return part.get_content_charset()
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _name(part: Message) -> str:
    try:
        return _decoded_header(part.get_filename() or "")
    except (ValueError, LookupError, TypeError, AttributeError):
        return "without a readable name"


def _header(message: Message, name: str) -> str:
    # A second `From` is somebody's who wants to be taken for somebody else.
    value = message.get(name)
    return " ".join(_decoded_header(value).split())[:LONGEST_HEADER] if value else ""


def _decoded_header(value: Header | str) -> str:
    """Return a header as text: encoded words of any charset, and bytes that somebody put there as they were."""
    try:
        pieces = decode_header(value)
    except (HeaderParseError, ValueError, LookupError, TypeError, AttributeError):
        pieces = [(str(value), None)]
    return "".join(_decoded_piece(content, charset) for content, charset in pieces)


def _decoded_piece(content: bytes | str, charset: str | None) -> str:
    if isinstance(content, str):
        if content.isascii():
            return content
        content = content.encode("utf-8", "surrogateescape")
    return decoded(content, [("sender", charset)])
