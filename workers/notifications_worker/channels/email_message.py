"""Building an e-mail: the same notification always makes the same bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from notifications_worker.channels.smtp_session import Envelope
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.headerregistry import Address
    from email.message import MIMEPart

    from notifications_worker.channels.attachments import AttachedFile
    from notifications_worker.channels.dkim import DkimSigner
    from notifications_worker.notification import Notification
    from notifications_worker.templates import Rendered

__all__ = ["Letter", "envelope"]

NOTIFICATION_HEADER = "X-IntelliFlow-Notification-Id"
UNSUBSCRIBE_HEADER = "List-Unsubscribe"
IDENTIFIERS = {"Message-ID", NOTIFICATION_HEADER, UNSUBSCRIBE_HEADER}
LONGEST_PLAIN_IDENTIFIER = 900
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


class _Policy(EmailPolicy):
    """Writes identifiers on one line as they are: Python would break a long one, or encode it, past all searching."""

    def fold_binary(self, name: str, value: str) -> bytes:
        if name in IDENTIFIERS and value.isascii() and len(value) <= LONGEST_PLAIN_IDENTIFIER:
            return f"{name}: {value}\r\n".encode("ascii")
        return super().fold_binary(name, value)


# Seven bits, so that no server needs 8BITMIME; whatever an address needs, `Envelope.utf8` says.
_SEVEN_BIT = _Policy(linesep="\r\n", cte_type="7bit")


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
    try:
        message = _headers(letter, sender)
        _body(message, letter)
        content = message.as_bytes(policy=_SEVEN_BIT.clone(utf8=utf8))
    except ValueError as error:  # Half a surrogate pair, for one, which a template's data can hold and no charset can.
        raise PermanentError("INVALID_PAYLOAD", "content holds what cannot be written in an e-mail") from error
    content = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    signed = signer.signed(content, letter.created_at) if signer else content
    keys = (signer.name,) if signer else ()
    return Envelope(sender.addr_spec, letter.recipient, signed, message["Message-ID"], utf8, keys)


def _headers(letter: Letter, sender: Address) -> EmailMessage:
    notification, subject = letter.notification, letter.words.subject
    message = EmailMessage(policy=_SEVEN_BIT)
    message["From"] = sender
    message["To"] = letter.recipient
    if subject:
        message["Subject"] = _one_line("content.subject", subject)
    message["Date"] = format_datetime(datetime.fromtimestamp(letter.created_at, UTC))
    message["Message-ID"] = _message_id(notification, letter.recipient, sender.domain)
    message[NOTIFICATION_HEADER] = _one_line("notificationId", notification.notification_id)
    message["Auto-Submitted"] = "auto-generated"  # So that no holiday answers it (RFC 3834).
    if letter.unsubscribe_url:
        message["Precedence"] = "bulk"
        message[UNSUBSCRIBE_HEADER] = f"<{letter.unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return message


def _body(message: EmailMessage, letter: Letter) -> None:
    """Text first, then HTML with what it shows, then the files (RFC 2046, 2387)."""
    message.set_content(letter.words.text)
    shown = [file for file in letter.files if file.content_id and letter.words.html]
    if letter.words.html:
        message.add_alternative(letter.words.html, subtype="html")
        for file in shown:
            _html_of(message).add_related(file.content, cid=f"<{file.content_id}>", **_described(file))
    for file in letter.files:
        if file not in shown:
            message.add_attachment(file.content, **_described(file))
    _part_the_same_way_again(message, letter)


def _html_of(message: EmailMessage) -> MIMEPart:
    *_, last = message.iter_parts()
    return last


def _described(file: AttachedFile) -> dict[str, Any]:
    kind, _, subtype = file.content_type.partition("/")
    where = "inline" if file.content_id else "attachment"
    return {"maintype": kind, "subtype": subtype, "filename": file.filename, "disposition": where}


def _part_the_same_way_again(message: EmailMessage, letter: Letter) -> None:
    """Python's own separators are random, and a resend is the same bytes. Made of the parts, one cannot be in them."""
    digests = (hashlib.sha256(file.content).hexdigest() for file in letter.files)
    digest = _digest(message["Message-ID"], letter.words.text, letter.words.html, *digests)
    for number, part in enumerate(part for part in message.walk() if part.is_multipart()):
        part.set_boundary(f"=_{number}{digest}")


def _message_id(notification: Notification, recipient: str, domain: str) -> str:
    return f"<{_digest(notification.tenant_id, notification.notification_id, recipient)}@{domain}>"


def _digest(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def _one_line(field: str, value: str) -> str:
    if _CONTROL_CHARACTERS.search(value):
        raise PermanentError("INVALID_PAYLOAD", f"{field} holds a line break or another control character")
    return value
