"""Signatures of webhooks as Standard Webhooks 1.0.0 has them: `v1` (HMAC-SHA256) and `v1a` (ed25519).

Signed is `<id>.<timestamp>.<body>`, the body as the very bytes that are sent. An endpoint whose key is being replaced
gets a signature by each key, the new one first, and may verify either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AsymmetricKey",
    "Key",
    "SecretUnusable",
    "SymmetricKey",
    "message_id",
    "new_secret",
    "read_key",
    "signed_headers",
]

SYMMETRIC, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
LEAST_SECRET_BYTES, MOST_SECRET_BYTES, NEW_SECRET_BYTES = 24, 64, 32
SEED_BYTES, PAIR_BYTES = 32, 64
# A dot would let two messages have the same signed content, and anything else may not stand in a header.
PLAIN_ID = re.compile(r"[A-Za-z0-9_:-]{1,128}")


class SecretUnusable(ValueError):
    """A text is no signing secret; the sentence says why, without repeating it."""


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """A secret that the receiver has, too."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """A name for the key that says nothing about it."""
        return SYMMETRIC + _digest(self.secret)

    def sign(self, content: bytes) -> str:
        """Return the signature as it stands in the header."""
        return f"v1,{_written(hmac.digest(self.secret, content, hashlib.sha256))}"


@dataclass(frozen=True, slots=True)
class AsymmetricKey:
    """A key whose public part the receiver has."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def id(self) -> str:
        """A name for the key that says nothing about its private part."""
        return PRIVATE + _digest(self.private.public_key().public_bytes_raw())

    @property
    def public(self) -> str:
        """What the receiver verifies with."""
        return PUBLIC + _written(self.private.public_key().public_bytes_raw())

    def sign(self, content: bytes) -> str:
        """Return the signature as it stands in the header."""
        return f"v1a,{_written(self.private.sign(content))}"


Key = SymmetricKey | AsymmetricKey


def read_key(secret: str) -> Key:
    """Read `whsec_` or `whsk_` and base64, padded or not. Raises SecretUnusable."""
    if secret.startswith(SYMMETRIC):
        return _symmetric(_decoded(secret.removeprefix(SYMMETRIC)))
    if secret.startswith(PRIVATE):
        return _asymmetric(_decoded(secret.removeprefix(PRIVATE)))
    if secret.startswith(PUBLIC):
        raise SecretUnusable("it is a public key: it is the private one, whsk_..., that signs")
    raise SecretUnusable("it begins with neither whsec_ nor whsk_")


def new_secret(*, asymmetric: bool = False) -> str:
    """Return a random secret: `whsec_...`, or `whsk_...`."""
    if not asymmetric:
        return SYMMETRIC + _written(secrets.token_bytes(NEW_SECRET_BYTES))
    private = Ed25519PrivateKey.generate()
    return PRIVATE + _written(private.private_bytes_raw() + private.public_key().public_bytes_raw())


def message_id(notification_id: str) -> str:
    """Return the `webhook-id`, the receiver's key for what it has had already: the same at each attempt."""
    if PLAIN_ID.fullmatch(notification_id):
        return notification_id
    return f"msg_{hashlib.sha256(notification_id.encode()).hexdigest()}"


def signed_headers(keys: Sequence[Key], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers, or two without a key to sign with.

    `timestamp` is that of the attempt, in whole seconds since the epoch.
    """
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp)}
    if not keys:
        return headers
    content = f"{webhook_id}.{timestamp}.".encode() + body
    return headers | {"webhook-signature": " ".join(key.sign(content) for key in keys)}


def _symmetric(secret: bytes) -> SymmetricKey:
    if not LEAST_SECRET_BYTES <= len(secret) <= MOST_SECRET_BYTES:
        limits = f"{LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES}"
        raise SecretUnusable(f"it holds {len(secret)} bytes, and a whsec_ secret has {limits}")
    return SymmetricKey(secret)


def _asymmetric(pair: bytes) -> AsymmetricKey:
    if len(pair) not in {SEED_BYTES, PAIR_BYTES}:
        raise SecretUnusable(f"it holds {len(pair)} bytes, and a whsk_ key has {SEED_BYTES}, or {PAIR_BYTES}")
    private = Ed25519PrivateKey.from_private_bytes(pair[:SEED_BYTES])
    if pair[SEED_BYTES:] not in {b"", private.public_key().public_bytes_raw()}:
        raise SecretUnusable("its public half does not belong to its private half")
    return AsymmetricKey(private)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SecretUnusable("what follows its prefix is not base64") from None


def _written(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:8]
