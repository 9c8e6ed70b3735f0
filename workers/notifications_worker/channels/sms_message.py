"""An SMS as every provider is asked to send it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

__all__ = ["SmsMessage"]


@dataclass(frozen=True, slots=True)
class SmsMessage:
    """One text for one number in E.164. Neither shows in a log line or a traceback."""

    to: str = field(repr=False)
    body: str = field(repr=False)
    parts: int
    tenant_id: str
    notification_id: str

    @property
    def reference(self) -> str:
        """A name for it that a provider may know: the same for every attempt, and of no use to anybody else."""
        whole = f"{self.tenant_id}\0{self.notification_id}"
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]
