"""Links that unsubscribe whoever follows them (RFC 8058): sealed, so that they name nobody and nobody can make one.

The same tenant and address always make the same link, for a mail that is sent again is to be the same bytes; that is
what AES-SIV is for (RFC 5297). Links do not expire: a mail may be opened years later.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PATH", "SHORTEST_SECRET", "Subscription", "UnsubscribeLinks"]

PATH = "/unsubscribe"
SHORTEST_SECRET = 32
LONGEST_TOKEN = 2048
_PURPOSE = b"unsubscribe links, first kind"


class Subscription(NamedTuple):
    """Who gets bulk mail from whom."""

    tenant_id: str
    address: str


class UnsubscribeLinks:
    """`secrets`: the first seals and all open, so that one can be replaced while mails with it are about."""

    def __init__(self, base_url: str, secrets: Sequence[str]) -> None:
        self._start = base_url.rstrip("/") + PATH + "/"
        self._seals = [AESSIV(_key(secret)) for secret in secrets]

    def url(self, subscription: Subscription) -> str:
        """Return the link that ends a subscription."""
        sealed = self._seals[0].encrypt(json.dumps(subscription).encode(), [_PURPOSE])
        return self._start + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def opened(self, token: str) -> Subscription | None:
        """Return what a link's last part stands for; None for what none of the secrets has sealed."""
        sealed = _decoded(token)
        for seal in self._seals:
            try:
                return Subscription(*json.loads(seal.decrypt(sealed, [_PURPOSE])))
            except (InvalidTag, ValueError):
                continue
        return None


def _decoded(token: str) -> bytes:
    if len(token) > LONGEST_TOKEN:
        return b""
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _key(secret: str) -> bytes:
    return HKDF(hashes.SHA512(), 64, salt=None, info=_PURPOSE).derive(secret.encode())
