"""Building an e-mail: the same notification always makes the same bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from typing import TYPE_CHECKING

from notifications_worker.channels.smtp_session import Envelope
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from email.headerregistry import Address

    from notifications_worker.notification import Notification
    from notifications_worker.templates import Rendered

__all__ = ["envelope"]

NOTIFICATION_HEADER = "X-IntelliFlow-Notification-Id"
IDENTIFIERS = {"Message-ID", NOTIFICATION_HEADER}
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


def envelope(
    notification: Notification, words: Rendered, sender: Address, recipient: str, created_at: float
) -> Envelope:
    """Build the mail. Raises PermanentError (INVALID_PAYLOAD) for words that no mail can hold.

    `created_at`, in seconds since the epoch, becomes the Date.
    """
    utf8 = not (recipient + sender.addr_spec).isascii()
    try:
        message = _headers(notification, words, sender, recipient, created_at)
        _body(message, words)
        content = message.as_bytes(policy=_SEVEN_BIT.clone(utf8=utf8))
    except ValueError as error:  # Half a surrogate pair, for one, which a template's data can hold and no charset can.
        raise PermanentError("INVALID_PAYLOAD", "content holds what cannot be written in an e-mail") from error
    with_crlf = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    return Envelope(sender.addr_spec, recipient, with_crlf, message["Message-ID"], utf8)


def _headers(
    notification: Notification, words: Rendered, sender: Address, recipient: str, created_at: float
) -> EmailMessage:
    message = EmailMessage(policy=_SEVEN_BIT)
    message["From"] = sender
    message["To"] = recipient
    if words.subject:
        message["Subject"] = _one_line("content.subject", words.subject)
    message["Date"] = format_datetime(datetime.fromtimestamp(created_at, UTC))
    message["Message-ID"] = _message_id(notification, recipient, sender.domain)
    message[NOTIFICATION_HEADER] = _one_line("notificationId", notification.notification_id)
    return message


def _body(message: EmailMessage, words: Rendered) -> None:
    message.set_content(words.text)
    if words.html:
        message.add_alternative(words.html, subtype="html")
        # Python's own separator is random, and a resend is the same bytes. Made of the parts, it cannot be in them.
        message.set_boundary("=_" + _digest(message["Message-ID"], words.text, words.html))


def _message_id(notification: Notification, recipient: str, domain: str) -> str:
    return f"<{_digest(notification.tenant_id, notification.notification_id, recipient)}@{domain}>"


def _digest(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def _one_line(field: str, value: str) -> str:
    if _CONTROL_CHARACTERS.search(value):
        raise PermanentError("INVALID_PAYLOAD", f"{field} holds a line break or another control character")
    return value
