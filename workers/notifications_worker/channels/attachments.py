"""Files that go with a mail, fetched from the object store while there is room for them."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from notifications_worker.channel import Circuit, NotAccepted, Verdict
from worker_runtime.outcome import Defer, PermanentError
from worker_runtime.storage import ImpossibleKey, NoSuchObject, ObjectTooLarge, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifications_worker.notification import Attachment
    from worker_runtime.storage import ObjectStore

__all__ = ["AttachedFile", "Attachments", "MailLimits"]

STORAGE_PAUSE_SECONDS = 5.0
# Base64 writes 57 bytes as a line of 76 characters and its end.
BYTES_IN_A_LINE = 57
CHARACTERS_OF_A_LINE = 78
# What a file of the recipient's computer may not be called, or would look like another's name in.
_FORBIDDEN_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Without the machine's own lists: every replica gives a file the same type.
_TYPES = mimetypes.MimeTypes()
UNKNOWN_TYPE = "application/octet-stream"
# A part of these types must not be in base64 (RFC 2046), so a file is not sent as one.
_NOT_A_FILE = ("multipart/", "message/")


@dataclass(frozen=True, slots=True)
class MailLimits:
    """In bytes: of one file as it is stored, and of a whole mail as it is sent, its files in base64."""

    attachment: int
    message: int


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A file as a mail takes it. `content_id`: it is shown within the HTML."""

    filename: str
    content_type: str
    content: bytes
    content_id: str | None = None


class Attachments:
    """Fetches the files of one mail after another."""

    def __init__(self, store: ObjectStore, limits: MailLimits) -> None:
        self._store = store
        self._limits = limits

    async def fetched(self, wanted: Sequence[Attachment]) -> list[AttachedFile]:
        """Return the files, in order.

        Raises PermanentError for one that is not there, cannot be meant or is too large, naming it, and NotAccepted
        while the store is away.
        """
        files: list[AttachedFile] = []
        room = self._limits.message
        for index, attachment in enumerate(wanted):
            place = f"content.attachments[{index}]"
            name = _file_name(place, attachment.filename)
            content = await self._content(f"{place} ({name})", attachment, room)
            room -= in_base64(len(content))
            files.append(AttachedFile(name, _type(attachment, name), content, _content_id(place, attachment)))
        return files

    async def _content(self, place: str, attachment: Attachment, room: int) -> bytes:
        try:
            return await self._store.read(self._key(place, attachment), min(self._limits.attachment, _fits(room)))
        except ImpossibleKey as error:
            raise PermanentError("INVALID_PAYLOAD", f"{place}: {error}") from error
        except NoSuchObject as error:
            raise PermanentError("ATTACHMENT_MISSING", f"{place} is not in the object store") from error
        except ObjectTooLarge as error:
            raise self._too_large(place, error.size) from error
        except StorageUnavailable as error:
            later = Defer("STORAGE_UNAVAILABLE", f"{place}: {error}", STORAGE_PAUSE_SECONDS)
            raise NotAccepted(Verdict(later, Circuit.UNTOLD), str(error)) from error

    def _key(self, place: str, attachment: Attachment) -> str:
        if attachment.storage_key is not None and attachment.url is None:
            return attachment.storage_key
        if attachment.url is not None and attachment.storage_key is None:
            return self._store.key_of(attachment.url)
        raise PermanentError("INVALID_PAYLOAD", f"{place} needs either storageKey or url")

    def _too_large(self, place: str, size: int) -> PermanentError:
        if size > self._limits.attachment:
            limit = f"EMAIL_MAX_ATTACHMENT_BYTES allows {self._limits.attachment}"
        else:
            limit = f"with it the mail would exceed EMAIL_MAX_MESSAGE_BYTES, which is {self._limits.message}"
        return PermanentError("ATTACHMENT_TOO_LARGE", f"{place} has {size} bytes; {limit}")


def in_base64(size: int) -> int:
    """Return how many bytes a file takes in a mail."""
    return -(-size // BYTES_IN_A_LINE) * CHARACTERS_OF_A_LINE


def _fits(room: int) -> int:
    return max(0, room) // CHARACTERS_OF_A_LINE * BYTES_IN_A_LINE


def _file_name(place: str, given: str) -> str:
    if _FORBIDDEN_IN_NAMES.search(given):
        raise PermanentError("INVALID_PAYLOAD", f"{place}.filename holds a line break or another control character")
    name = re.split(r"[/\\]", given)[-1].strip()
    if name.strip(".") == "":
        raise PermanentError("INVALID_PAYLOAD", f"{place}.filename is not the name of a file")
    return name


def _type(attachment: Attachment, name: str) -> str:
    kind = (attachment.content_type or _TYPES.guess_type(name, strict=False)[0] or UNKNOWN_TYPE).lower()
    return UNKNOWN_TYPE if kind.startswith(_NOT_A_FILE) else kind


def _content_id(place: str, attachment: Attachment) -> str | None:
    if attachment.inline and attachment.content_id is None:
        raise PermanentError("INVALID_PAYLOAD", f"{place} is inline and has no contentId")
    return attachment.content_id if attachment.inline else None
