"""Signing mail with DomainKeys: RFC 6376 with `relaxed` on both sides, keys of RFC 8301 (RSA) and RFC 8463 (Ed25519).

The same mail always gets the same signature: both algorithms are deterministic, and the time comes from the job.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DkimSigner", "PrivateKey", "body_hash", "read_private_key", "signed_headers"]

PrivateKey = RSAPrivateKey | Ed25519PrivateKey
Header = tuple[str, str]

SMALLEST_RSA_BITS = 1024
# Named twice, so that a second one added on the way breaks the signature (RFC 6376, 8.15).
ONCE_ONLY = ("From", "To", "Subject", "Date")
OTHERS = (
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Auto-Submitted",
)
LINE_CHARACTERS = 72
_HEADER = re.compile(rb"([^:\r\n]+):((?:[^\r\n]|\r\n[ \t])*)\r\n")


def read_private_key(text: str) -> PrivateKey:
    r"""Read a key in PEM, whose line ends may be written `\n`. Raises ValueError, which never shows the key."""
    try:
        key = serialization.load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError) as error:  # A TypeError says that it wants a password.
        raise ValueError("not a private key in PEM, without a password") from error
    if not isinstance(key, (RSAPrivateKey, Ed25519PrivateKey)):
        raise ValueError("neither an RSA nor an Ed25519 key")  # noqa: TRY004 - the text is wrong, not its type.
    if isinstance(key, RSAPrivateKey) and key.key_size < SMALLEST_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits, which receivers refuse (RFC 8301)")
    return key


@dataclass(frozen=True, slots=True)
class DkimSigner:
    """Signs as `domain`; receivers find the public key at `<selector>._domainkey.<domain>`."""

    domain: str
    selector: str
    key: PrivateKey

    @property
    def name(self) -> str:
        """Where the public key is published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def algorithm(self) -> str:
        """The `a=` of the signature."""
        return "rsa-sha256" if isinstance(self.key, RSAPrivateKey) else "ed25519-sha256"

    def signed(self, content: bytes, at: float) -> bytes:
        """Return a mail with its signature in front. `at`, in seconds since the epoch, is when it was written."""
        head, _, body = content.partition(b"\r\n\r\n")
        headers = _headers(head + b"\r\n")
        signed = signed_headers(headers)
        unsigned = self._unsigned(signed, body_hash(body), at)
        signature = base64.b64encode(self.signature(headers, signed, unsigned)).decode()
        return f"DKIM-Signature: {unsigned}{_folded(signature)}\r\n".encode() + content

    def signature(self, headers: Iterable[Header], signed: Sequence[str], unsigned: str) -> bytes:
        """Sign those headers and the signature's own, which is `unsigned` as long as its `b=` is empty."""
        chosen = [*_chosen(headers, signed), ("DKIM-Signature", unsigned)]
        said = "\r\n".join(_relaxed(name, value) for name, value in chosen).encode("utf-8", "surrogateescape")
        if isinstance(self.key, RSAPrivateKey):
            return self.key.sign(said, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(hashlib.sha256(said).digest())

    def _unsigned(self, signed: Sequence[str], digest: str, at: float) -> str:
        return (
            f"v=1; a={self.algorithm}; c=relaxed/relaxed; d={self.domain};\r\n"
            f" s={self.selector}; t={int(at)};\r\n"
            f" h={_listed(signed)};\r\n"
            f" bh={digest};\r\n"
            " b="
        )


def body_hash(body: bytes) -> str:
    """Return the `bh=` of a body in relaxed form: spaces run together, and off at the ends of lines and of the mail."""
    lines = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", re.sub(rb"[ \t]+", b" ", body)).rstrip(b"\r\n")
    return base64.b64encode(hashlib.sha256(lines + b"\r\n" if lines else b"").digest()).decode()


def signed_headers(headers: Iterable[Header]) -> list[str]:
    """Return what `h=` names: every header there is that is worth it, and the absence of others."""
    there = {name.lower() for name, _ in headers}
    present = [name for name in (*ONCE_ONLY, *OTHERS) if name.lower() in there]
    return [*present, *ONCE_ONLY]


def _headers(head: bytes) -> list[Header]:
    found = (match.groups() for match in _HEADER.finditer(head))
    return [(name.decode("ascii").rstrip(" \t"), value.decode("utf-8", "surrogateescape")) for name, value in found]


def _chosen(headers: Iterable[Header], names: Sequence[str]) -> Iterable[Header]:
    """Pick each header by its name from the bottom up; a name that finds none left stands for its absence."""
    left: dict[str, list[Header]] = {}
    for header in headers:
        left.setdefault(header[0].lower(), []).append(header)
    return [left[name.lower()].pop() for name in names if left.get(name.lower())]


def _relaxed(name: str, value: str) -> str:
    unfolded = re.sub(r"[ \t]+", " ", value.replace("\r\n", ""))
    return f"{name.lower()}:{unfolded.strip(' ')}"


def _listed(names: Sequence[str]) -> str:
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > LINE_CHARACTERS:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n ".join(lines)[:-1]


def _folded(signature: str) -> str:
    pieces = [signature[start : start + LINE_CHARACTERS] for start in range(0, len(signature), LINE_CHARACTERS)]
    return "\r\n ".join(pieces)
