"""Writes mails as Outlook keeps them."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from compound_files import compound_file

if TYPE_CHECKING:
    from compound_files import Tree

SENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def outlook_mail(subject: str, text: str, attachments: dict[str, bytes] | None = None) -> bytes:
    """Return a mail with these files attached."""
    return compound_file(_mail(subject, text, attachments or {}))


def _mail(subject: str, text: str, attachments: dict[str, bytes]) -> Tree:
    ticks = int((SENT - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10_000_000
    tree: Tree = {
        "__properties_version1.0": bytes(32) + struct.pack("<IIQ", 0x00390040, 6, ticks),
        **_texts({"0037": subject, "1000": text, "0C1A": "Jürgen Groß", "0C1F": "jg@example.com", "0E04": "Ada"}),
    }
    for number, (name, content) in enumerate(attachments.items()):
        tree[f"__attach_version1.0_#{number:08X}"] = {
            "__properties_version1.0": bytes(8),
            "__substg1.0_37010102": content,
            **_texts({"3707": name}),
        }
    return tree


def _texts(texts: dict[str, str]) -> Tree:
    return {f"__substg1.0_{number}001F": text.encode("utf-16-le") for number, text in texts.items()}
