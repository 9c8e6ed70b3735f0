"""Tell whether a request really is a webhook of ours. Only an asymmetric key needs a package: cryptography."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

TOLERANCE_SECONDS = 300


def is_genuine(key: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Take `whsec_...` or `whpk_...`, headers with lower-case names, and the body's bytes as they came."""
    signed = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    webhook_id, timestamp, signatures = signed
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    content = f"{webhook_id}.{timestamp}.".encode() + body
    return any(_signed_by(key, signature, content) for signature in signatures.split())


def _signed_by(key: str, signature: str, content: bytes) -> bool:
    version, _, encoded = signature.partition(",")
    kind, _, secret = key.partition("_")
    if (kind, version) == ("whsec", "v1"):
        expected = hmac.digest(base64.b64decode(secret), content, hashlib.sha256)
        return hmac.compare_digest(base64.b64encode(expected), encoded.encode())
    if (kind, version) == ("whpk", "v1a"):
        return _signed_by_private_half(base64.b64decode(secret), encoded, content)
    return False


def _signed_by_private_half(public: bytes, encoded: str, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(encoded), content)
    except (InvalidSignature, ValueError):
        return False
    return True
