"""Which notification a status callback is about: a parameter of the address that a provider is given to call back.

The provider signs the whole address, so nobody else can write one; it is encoded only to keep it short and free of
characters that proxies change.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

__all__ = ["PARAMETER", "About"]

PARAMETER = "about"


@dataclass(frozen=True, slots=True)
class About:
    """A notification, by the ids its producer gave."""

    tenant_id: str
    notification_id: str

    def encoded(self) -> str:
        """Write it as a URL may hold it."""
        text = json.dumps([self.tenant_id, self.notification_id], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decoded(cls, text: str) -> About | None:
        """Read it back; None for what this never wrote."""
        try:
            found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        except (binascii.Error, ValueError):
            return None
        if not (isinstance(found, list) and len(found) == 2 and all(isinstance(part, str) for part in found)):  # noqa: PLR2004
            return None
        return cls(*found)
