"""Standard Webhooks: the specification's vectors, the reference library as an oracle, and what must not verify."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from notifications_worker.channels.webhook_signature import (
    AsymmetricKey,
    SecretUnusable,
    SymmetricKey,
    message_id,
    new_secret,
    read_key,
    signed_headers,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def now() -> int:
    return int(time.time())


def verified(headers: dict[str, str], body: bytes, secret: str = SECRET) -> None:
    Webhook(secret).verify(body, headers, json_parse=False)


def test_the_specifications_vectors() -> None:
    keys = [read_key(SECRET), read_key(PRIVATE)]
    assert signed_headers(keys, ID, TIMESTAMP, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": f"{V1} {V1A}",
    }
    private = read_key(PRIVATE)
    assert isinstance(private, AsymmetricKey)
    assert private.public == PUBLIC


def test_an_unpadded_secret_and_a_bare_seed_are_the_same_keys() -> None:
    padded = "whsec_" + base64.b64encode(bytes(range(25))).decode()
    assert padded.endswith("=")
    assert read_key(padded) == read_key(padded.rstrip("="))
    seed = "whsk_" + base64.b64encode(base64.b64decode(PRIVATE.removeprefix("whsk_"))[:32]).decode()
    assert read_key(seed).sign(b"x") == read_key(PRIVATE).sign(b"x")


def test_during_a_rotation_both_keys_verify_and_the_new_one_stands_first() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers([read_key(new), read_key(old)], ID, now(), BODY)
    for secret in (old, new):
        verified(headers, BODY, secret)
    alone = signed_headers([read_key(new)], ID, now(), BODY)
    assert headers["webhook-signature"].split()[0] == alone["webhook-signature"]
    with pytest.raises(WebhookVerificationError):
        verified(alone, BODY, old)


def test_an_asymmetric_signature_beside_is_ignored_by_who_does_not_know_it() -> None:
    verified(signed_headers([read_key(PRIVATE), read_key(SECRET)], ID, now(), BODY), BODY)


@given(body=st.text(), secret=st.binary(min_size=24, max_size=64), notification=st.text(min_size=1))
def test_the_reference_library_verifies_whatever_was_signed(body: str, secret: bytes, notification: str) -> None:
    written = "whsec_" + base64.b64encode(secret).decode()
    headers = signed_headers([read_key(written)], message_id(notification), now(), body.encode("utf-8", "replace"))
    verified(headers, body.encode("utf-8", "replace"), written)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_other"},
        {"webhook-timestamp": str(TIMESTAMP)},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
        {"webhook-signature": V1},
        {"webhook-signature": ""},
        {"webhook-timestamp": "x"},
    ],
)
def test_what_was_changed_on_the_way_does_not_verify(change: dict[str, str]) -> None:
    headers = signed_headers([read_key(SECRET)], ID, now(), BODY)
    verified(headers, BODY)
    with pytest.raises(WebhookVerificationError):
        verified(headers | change, BODY)


@pytest.mark.parametrize("seconds", [-301, 301, -86_400])
def test_what_is_not_of_this_moment_does_not_verify(seconds: int) -> None:
    with pytest.raises(WebhookVerificationError):
        # Two seconds more, for the clock goes on between here and there.
        verified(signed_headers([read_key(SECRET)], ID, now() + seconds + (2 if seconds > 0 else 0), BODY), BODY)
    verified(signed_headers([read_key(SECRET)], ID, now() + (290 if seconds > 0 else -290), BODY), BODY)


def test_one_changed_byte_does_not_verify() -> None:
    headers = signed_headers([read_key(SECRET)], ID, now(), BODY)
    for body in (BODY + b"\n", BODY.replace(b" ", b""), b""):
        with pytest.raises(WebhookVerificationError):
            verified(headers, body)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(PUBLIC.removeprefix("whpk_")))
    signature = base64.b64decode(read_key(PRIVATE).sign(b"body").removeprefix("v1a,"))
    public.verify(signature, b"body")
    with pytest.raises(InvalidSignature):
        public.verify(signature, b"bodx")


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "neither whsec_ nor whsk_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "neither whsec_ nor whsk_"),
        ("whsec_", "0 bytes"),
        ("whsec_c2hvcnQ=", "5 bytes, and a whsec_ secret has 24 to 64"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "65 bytes"),
        ("whsec_not base64!", "not base64"),
        ("whsec_ümlaut", "not base64"),
        ("whsk_" + base64.b64encode(bytes(31)).decode(), "31 bytes, and a whsk_ key has 32, or 64"),
        ("whsk_" + base64.b64encode(bytes(64)).decode(), "does not belong"),
        (PUBLIC, "public key"),
    ],
)
def test_a_secret_that_is_none_is_told_without_repeating_it(secret: str, why: str) -> None:
    with pytest.raises(SecretUnusable, match=why) as caught:
        read_key(secret)
    encoded = secret.partition("_")[2]
    assert not encoded or encoded not in str(caught.value)


def test_new_secrets_are_usable_and_never_the_same() -> None:
    made = {new_secret(), new_secret(), new_secret(asymmetric=True), new_secret(asymmetric=True)}
    kinds: list[Any] = [type(read_key(secret)) for secret in sorted(made)]
    assert kinds == [SymmetricKey, SymmetricKey, AsymmetricKey, AsymmetricKey]


def test_no_key_shows_its_secret() -> None:
    for secret in (SECRET, PRIVATE):
        key = read_key(secret)
        assert secret.partition("_")[2][:8] not in repr(key) + key.id
    assert read_key(SECRET).id != read_key(new_secret()).id


@pytest.mark.parametrize(
    ("notification", "plain"),
    [
        ("8f14e45f-ceea-467f-a8f1-2b0b0c6f0c2e", True),
        ("n-1", True),
        ("order:42", True),
        ("a.1", False),
        ("a b", False),
        ("a\r\nx: y", False),
        ("Zoë", False),
        ("x" * 200, False),
    ],
)
def test_an_id_that_could_not_stand_in_a_header_or_be_signed_is_replaced(notification: str, plain: Any) -> None:
    webhook_id = message_id(notification)
    assert (webhook_id == notification) is plain
    assert webhook_id == message_id(notification)
    assert "." not in webhook_id
    assert webhook_id.isascii()
