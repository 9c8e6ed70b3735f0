"""Checks a DKIM signature as a receiver does, written from RFC 6376 alone: it shares nothing with what signs.

Its own proof are the signed messages that the RFCs print, in tests/unit/test_dkim.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    PublicKey = RSAPublicKey | Ed25519PublicKey


def unfolded_fields(head: str) -> list[str]:
    fields: list[str] = []
    for line in head.split("\r\n"):
        if line[:1] in {" ", "\t"}:
            fields[-1] += "\r\n" + line
        elif line:
            fields.append(line)
    return fields


def tags_of(value: str) -> dict[str, str]:
    parts = (part.partition("=") for part in value.split(";") if part.strip())
    return {name.strip(): re.sub(r"\s+", "", value) for name, _, value in parts}


def canonical_field(field: str, how: str) -> str:
    if how == "simple":
        return field
    name, _, value = field.partition(":")
    return name.strip(" \t").lower() + ":" + re.sub(r"[ \t]+", " ", value.replace("\r\n", "")).strip(" ")


def canonical_body(body: bytes, how: str) -> bytes:
    lines = body.split(b"\r\n")
    if how == "relaxed":
        lines = [re.sub(rb"[\t ]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if how == "relaxed" else b"\r\n"
    return b"\r\n".join(lines) + b"\r\n"


def verifies(mail: bytes, number: int, key: PublicKey) -> bool:
    """Tell whether the DKIM-Signature with that number, from the top, is right."""
    head, _, body = mail.partition(b"\r\n\r\n")
    fields = unfolded_fields(head.decode())
    ours = [field for field in fields if field.lower().startswith("dkim-signature:")][number]
    tags = tags_of(ours.partition(":")[2])
    head_how, _, body_how = tags["c"].partition("/")
    digest = hashlib.sha256(canonical_body(body, body_how or "simple")).digest()
    if base64.b64encode(digest).decode() != tags["bh"]:
        return False
    return right(key, base64.b64decode(tags["b"]), signed_text(fields, ours, tags["h"].split(":"), head_how))


def signed_text(fields: list[str], ours: str, names: list[str], how: str) -> bytes:
    left = list(reversed([field for field in fields if field is not ours]))
    said = ""
    for name in names:
        match = next((field for field in left if field.partition(":")[0].strip().lower() == name.lower()), None)
        if match is not None:
            left.remove(match)
            said += canonical_field(match, how) + "\r\n"
    return (said + canonical_field(re.sub(r"(\bb=)[^;]*", r"\1", ours), how)).encode()


def right(key: PublicKey, signature: bytes, said: bytes) -> bool:
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, said, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, hashlib.sha256(said).digest())
    except InvalidSignature:
        return False
    return True
