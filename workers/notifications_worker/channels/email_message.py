"""Building an e-mail: the same notification always makes the same bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from typing import TYPE_CHECKING

from notifications_worker.channels.mime import file_part, header, multipart, text_part
from notifications_worker.channels.smtp_session import Envelope
from notifications_worker.notification import Priority
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from email.headerregistry import Address

    from notifications_worker.channels.attachments import AttachedFile
    from notifications_worker.channels.dkim import DkimSigner
    from notifications_worker.notification import Notification
    from notifications_worker.templates import Rendered

__all__ = ["Letter", "envelope"]

NOTIFICATION_HEADER = "X-IntelliFlow-Notification-Id"
# Identifiers stay on one line as they are: broken in two, or encoded, nobody could search for them.
LONGEST_PLAIN_IDENTIFIER = 900
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes into a mail. `created_at`, in seconds since the epoch, becomes its Date."""

    notification: Notification
    recipient: str
    created_at: float
    words: Rendered
    files: Sequence[AttachedFile] = ()
    unsubscribe_url: str | None = None


def envelope(letter: Letter, sender: Address, signer: DkimSigner | None = None) -> Envelope:
    """Write the mail and sign it. Raises PermanentError (INVALID_PAYLOAD) for words that no mail can hold."""
    utf8 = not (letter.recipient + sender.addr_spec).isascii()
    message_id = _message_id(letter.notification, letter.recipient, sender.domain)
    try:
        content = b"".join(_headers(letter, sender, message_id, utf8=utf8)) + _body(letter, message_id)
    except ValueError as error:  # Half a surrogate pair, for one, which a template's data can hold and no charset can.
        raise PermanentError("INVALID_PAYLOAD", "content holds what cannot be written in an e-mail") from error
    signed = signer.signed(content, letter.created_at) if signer else content
    return Envelope(
        sender.addr_spec,
        letter.recipient,
        signed,
        message_id,
        utf8,
        signed_by=(signer.name,) if signer else (),
        urgent=letter.notification.priority is Priority.URGENT,
    )


def _headers(letter: Letter, sender: Address, message_id: str, *, utf8: bool) -> Iterable[bytes]:
    yield header("From", sender, utf8=utf8)
    yield header("To", letter.recipient, utf8=utf8)
    if letter.words.subject:
        yield header("Subject", _one_line("content.subject", letter.words.subject), utf8=utf8)
    yield header("Date", format_datetime(datetime.fromtimestamp(letter.created_at, UTC)))
    yield _identifier("Message-ID", message_id)
    yield _identifier(NOTIFICATION_HEADER, _one_line("notificationId", letter.notification.notification_id))
    yield header("Auto-Submitted", "auto-generated")  # So that no holiday answers it (RFC 3834).
    if letter.unsubscribe_url:
        yield header("Precedence", "bulk")
        yield _identifier("List-Unsubscribe", f"<{letter.unsubscribe_url}>")
        yield header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
    yield header("MIME-Version", "1.0")


def _identifier(name: str, value: str) -> bytes:
    return header(name, value, longest=LONGEST_PLAIN_IDENTIFIER)


def _body(letter: Letter, message_id: str) -> bytes:
    """Text first, then HTML with what it shows, then the files (RFC 2046, 2387)."""
    words, shown = letter.words, [file for file in letter.files if file.content_id and letter.words.html]
    boundary = _boundaries(letter, message_id)
    body = text_part("plain", words.text)
    if words.html:
        html = text_part("html", words.html)
        related = multipart("related", next(boundary), [html, *map(_written, shown)]) if shown else html
        body = multipart("alternative", next(boundary), [body, related])
    attached = [file for file in letter.files if file not in shown]
    return multipart("mixed", next(boundary), [body, *map(_written, attached)]) if attached else body


def _written(file: AttachedFile) -> bytes:
    return file_part(file.content, file.content_type, file.filename, file.content_id)


def _boundaries(letter: Letter, message_id: str) -> Iterator[str]:
    """A resend is the same bytes, so separators are made of the parts, and for that reason cannot be in them."""
    digests = (hashlib.sha256(file.content).hexdigest() for file in letter.files)
    digest = _digest(message_id, letter.words.text, letter.words.html, *digests)
    return (f"=_{number}{digest}" for number in count())


def _message_id(notification: Notification, recipient: str, domain: str) -> str:
    return f"<{_digest(notification.tenant_id, notification.notification_id, recipient)}@{domain}>"


def _digest(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def _one_line(field: str, value: str) -> str:
    if _CONTROL_CHARACTERS.search(value):
        raise PermanentError("INVALID_PAYLOAD", f"{field} holds a line break or another control character")
    return value
