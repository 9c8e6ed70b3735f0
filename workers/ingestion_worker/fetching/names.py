"""What a document is called and said to be, from headers and URLs that strangers wrote."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

__all__ = ["charset_of", "file_name", "media_type_of", "name_of", "name_of_url"]

LONGEST_NAME = 255
LONGEST_SUFFIX = 16
NAMELESS = "document"
LONGEST_HEADER = 4096
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # noqa: S105  a part of a media type
_MEDIA_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*(;|$)")
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([A-Za-z0-9][A-Za-z0-9_.:+()-]{0,39})""", re.IGNORECASE)
# Control characters, and those that make a name read as another one.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def media_type_of(content_type: str | None) -> str | None:
    """Return `text/html` of `Text/HTML; charset=utf-8`, and nothing of what is no media type."""
    found = _MEDIA_TYPE.match((content_type or "")[:LONGEST_HEADER])
    return found[1].lower() if found else None


def charset_of(content_type: str | None) -> str | None:
    """Return the charset that a Content-Type names, as it is written there."""
    found = _CHARSET.search((content_type or "")[:LONGEST_HEADER])
    return found[1] if found else None


def name_of(disposition: str | None, answered: str, asked: str) -> str:
    """Return a document's name: what Content-Disposition says, or else the end of the URL that has a suffix.

    `answered` is the URL at the end of all redirects, `asked` the one at their beginning.
    """
    for name in (_disposed(disposition), name_of_url(answered), name_of_url(asked)):
        if PurePosixPath(name).suffix:
            return name
    return _disposed(disposition) or name_of_url(answered) or name_of_url(asked) or NAMELESS


def name_of_url(url: str) -> str:
    """Return the last part of a URL's path, or nothing."""
    return file_name(unquote(urlsplit(url).path, errors="replace").rstrip("/"))


def file_name(text: str) -> str:
    """Return what of a text can be the name of a file: its last part, without what nobody can see."""
    name = _FORBIDDEN.sub("", re.split(r"[/\\]", text)[-1]).strip()
    if not name.strip("."):
        return ""
    suffix = PurePosixPath(name).suffix
    if len(name) <= LONGEST_NAME or len(suffix) > LONGEST_SUFFIX:
        return name[:LONGEST_NAME]
    return name[: LONGEST_NAME - len(suffix)] + suffix


def _disposed(disposition: str | None) -> str:
    if not disposition:
        return ""
    message = Message()
    message["Content-Disposition"] = re.sub(r"[\r\n]", " ", disposition[:LONGEST_HEADER])
    try:
        return file_name(message.get_filename() or "")
    except (ValueError, LookupError, TypeError):  # A name in an encoding that is none, of half of an escape.
        return ""
